"""`--overlay`: draws predictions over the pictures that they were made from.

Like exports, overlays are made from the lines on disk, including those of earlier runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_rft.body.smpl import BodyModel
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.video import encode_jpeg
from pose_rft.predict.film import Film
from pose_rft.predict.inputs import Input
from pose_rft.predict.photographs import Photograph, encode_png, read_photograph
from pose_rft.predict.prediction import Prediction
from pose_rft.predict.store import Head, heads, of_predict, read_lines, writing
from pose_rft.render.bodies import PREDICTED, BodyPainter, on_frame

LONGEST_SIDE = 1280  # px; larger photographs are scaled down to it in overlays
PORTRAIT = 512
FRAME_QUALITY = 90
PALETTE = (
    PREDICTED,
    (0.90, 0.55, 0.30),
    (0.50, 0.74, 0.45),
    (0.80, 0.50, 0.75),
    (0.85, 0.75, 0.35),
    (0.40, 0.75, 0.78),
)
WHITE = (255, 255, 255)


class Overlays:
    """Writes `NAME.png` for a photograph or sentence, `NAME_overlay/FRAME.jpg` for a video; keeps existing files
    unless `replace`."""

    def __init__(self, lines: Path, names: Mapping[str, str], body: BodyModel, every: int, replace: bool) -> None:
        self.lines, self.names, self.every, self.replace = lines, names, every, replace
        self.body, self.painter = body, BodyPainter(body)
        self._frames: dict[str, Iterator[tuple[int, Photograph]]] = {}

    def pictures(self, inputs: Mapping[str, Input]) -> Iterator[tuple[Input, list[Head]]]:
        """Yields each picture of these inputs ({key: input}) that has lines: its input and the heads of its lines."""
        wanted = (head for head in heads(self.lines) if head.input in inputs)
        for _, group in groupby(wanted, lambda head: (head.input, head.frame)):
            lines = list(group)
            yield inputs[lines[0].input], lines

    def draw(self, one: Input, group: Sequence[Head]) -> None:
        """Writes the overlay of one picture unless it exists; the frames of a video must come in order.

        Raises:
            PoseRftError: the picture can no longer be read, the overlay cannot be written, or a line is damaged.
        """
        name, frame = self.names[group[0].input], group[0].frame
        target = self.lines.parent / (f"{name}_overlay/{frame:06d}.jpg" if one.kind == "video" else f"{name}.png")
        if target.exists() and not self.replace:
            return
        with of_predict(self.lines):
            people = [Prediction.of_line(line, self.body) for line in read_lines(self.lines, group)]
        photograph = self._picture(one, group[0])
        if one.kind == "video":
            assert photograph is not None
            tracks = [head.track or 0 for head in group]
            data = encode_jpeg(Scene(photograph).overlay(people, self.painter, tracks)[..., ::-1], FRAME_QUALITY)
        else:
            data = encode_png(self._still(people, photograph))
        with writing(target.parent):
            atomic.write_bytes(target, data)

    def _picture(self, one: Input, head: Head) -> Photograph | None:
        if one.path is None:
            return None
        if one.kind == "photograph":
            return read_photograph(one.path)
        frames = self._frames.setdefault(head.input, Film(one, self.every, 0.0).pictures(head.frame))
        found = next((picture for frame, picture in frames if frame == head.frame), None)
        if found is None:
            raise PoseRftError(f"{one.source} has no frame {head.frame} any more; predict it again with --overwrite.")
        return found

    def _still(self, people: Sequence[Prediction], photograph: Photograph | None) -> NDArray[np.uint8]:
        if photograph is None:
            main = self.painter.portrait(on_frame(people[0].rotations), size=PORTRAIT)
        else:
            main = Scene(photograph).beside(people, self.painter)
        for one in people:
            main = self._with_samples(main, one)
        return main

    def _with_samples(self, main: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
        """Returns the picture with the sampled poses below it, in rows of four."""
        if not len(prediction.samples):
            return main
        per_row = min(len(prediction.samples), 4)
        size = max(96, main.shape[1] // per_row)
        turn = on_frame if prediction.seen is None else lambda pose: pose
        tiles = [self.painter.portrait(turn(sample), size=size) for sample in prediction.samples]
        tiles += [np.full_like(tiles[0], 245)] * (-len(tiles) % per_row)
        rows = [np.concatenate(tiles[i : i + per_row], axis=1) for i in range(0, len(tiles), per_row)]
        grid = np.concatenate(rows)
        missing = max(0, main.shape[1] - grid.shape[1])
        wide = cv2.copyMakeBorder(grid, 0, 0, 0, missing, cv2.BORDER_CONSTANT, value=(245, 245, 245))
        return np.concatenate([main, wide[:, : main.shape[1]]])


class Scene:
    """A photograph scaled to the size of the overlays."""

    def __init__(self, photograph: Photograph) -> None:
        self.zoom = min(1.0, LONGEST_SIDE / max(photograph.size))
        size = tuple(max(1, round(length * self.zoom)) for length in photograph.size)
        small = self.zoom < 1
        self.pixels = cv2.resize(photograph.pixels, size, interpolation=cv2.INTER_AREA) if small else photograph.pixels

    def overlay(
        self, found: Sequence[Prediction], painter: BodyPainter, colours: Sequence[int] | None = None
    ) -> NDArray[np.uint8]:
        """(H, W, 3): the bodies over the photograph, drawn farthest first; colours: palette indices, else the order."""
        picture = np.asarray(self.pixels, np.float32) / 255 * 0.9
        order = sorted(range(len(found)), key=lambda i: -float(found[i].joints[0, 2]))
        for index in order:
            place = found[index].place
            if place is not None:
                K = np.diag([self.zoom, self.zoom, 1.0]) @ place.K
                colour = PALETTE[(index if colours is None else colours[index]) % len(PALETTE)]
                painted = painter.paint(found[index].vertices.numpy(), colour, K, picture)
                picture = painted.astype(np.float32) / 255
        return np.round(picture * 255).astype(np.uint8)

    def beside(self, people: Sequence[Prediction], painter: BodyPainter) -> NDArray[np.uint8]:
        """Returns the photograph with the outlines of the crops and, beside it, the photograph with the bodies."""
        marked = self.pixels.copy()
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
        for one in people:
            if one.seen is not None:
                outline = np.round(one.seen.region.to_picture(corners) * self.zoom).astype(np.int32)
                cv2.polylines(marked, [outline], True, WHITE, 2)
        return np.concatenate([marked, self.overlay(people, painter)], axis=1)
