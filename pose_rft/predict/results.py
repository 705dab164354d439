"""Results as files: JSON, mesh and picture for every person or sentence, and one picture of everyone together."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.predict.photographs import Photograph, encode_png
from pose_rft.predict.prediction import Prediction
from pose_rft.predict.predictor import Predictor
from pose_rft.render.bodies import PREDICTED, BodyPainter, on_frame

LONGEST_SIDE = 1280  # px of a photograph in the result's picture
PORTRAIT = 512
PALETTE = (
    PREDICTED,
    (0.90, 0.55, 0.30),
    (0.50, 0.74, 0.45),
    (0.80, 0.50, 0.75),
    (0.85, 0.75, 0.35),
    (0.40, 0.75, 0.78),
)
WHITE = (255, 255, 255)

Mesh = Literal["glb", "obj"]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PoseRftError(
            f"{error.filename or folder} cannot be written ({error.strerror}); name another folder with --out."
        ) from None


def check_folder(folder: Path) -> None:
    """Makes the folder of the results, and sees that files can be written into it.

    Raises:
        PoseRftError: it cannot be made or written.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


class Stems:
    """Names of results in one run: no two inputs share one, whatever they are called. Those of earlier runs are
    replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    def take(self, name: str, count: int, several: bool = False) -> list[Path]:
        """`count` stems from the name of an input: NAME, or NAME_0, NAME_1, … if there are (or may be) several, and
        NAME-2… where another input has them."""
        for copy in range(1, len(self._taken) + 2):
            base = name if copy == 1 else f"{name}-{copy}"
            stems = [f"{base}_{i}" for i in range(count)] if count > 1 or several else [base]
            claimed = {stem.casefold() for stem in [*stems, base, f"{base}_people"]}
            if not claimed & self._taken:
                self._taken |= claimed
                return [self.folder / stem for stem in stems]
        raise AssertionError("each copy meets at least one taken name")


class Writer:
    """Paints and writes the results of one predictor."""

    def __init__(self, predictor: Predictor, folder: Path, mesh: Mesh) -> None:
        self.predictor, self.folder, self.mesh = predictor, folder, mesh
        self.painter = BodyPainter(predictor.body)
        self.stems = Stems(folder)

    def people(self, found: Sequence[Prediction], photograph: Photograph) -> list[list[Path]]:
        """Files of everyone in a photograph; of several people, a picture with all of them too."""
        stems = self.stems.take(photograph.path.stem, len(found))
        scene = Scene(photograph)
        written = [
            self._write(one, stem, scene.beside(one, self.painter)) for one, stem in zip(found, stems, strict=True)
        ]
        if len(found) > 1:
            everyone = stems[0].with_name(f"{stems[0].name.rpartition('_')[0]}_people.png")
            with _writing(self.folder):
                atomic.write_bytes(everyone, encode_png(scene.overlay(found, self.painter)))
        return written

    def sentence(self, prediction: Prediction, number: int) -> list[Path]:
        portrait = self.painter.portrait(on_frame(prediction.rotations), size=PORTRAIT)
        (stem,) = self.stems.take(f"text_{number}", 1)
        return self._write(prediction, stem, portrait)

    def _write(self, prediction: Prediction, stem: Path, main: NDArray[np.uint8]) -> list[Path]:
        """`STEM.json`, `STEM.glb|obj` and `STEM.png`."""
        outputs = [stem.with_name(f"{stem.name}.{extension}") for extension in ("json", self.mesh, "png")]
        # Viewers expect y up, z towards the viewer: half a turn about x from the camera's axes.
        vertices = prediction.vertices.numpy() * np.array([1.0, -1.0, -1.0])
        shape = trimesh.Trimesh(vertices, self.predictor.body.faces.numpy(), process=False)
        exported: Any = shape.export(file_type=self.mesh)
        picture = self._with_samples(main, prediction)
        with _writing(self.folder):
            atomic.write_json(outputs[0], prediction.content(self.predictor.folder, self.predictor.body))
            atomic.write_bytes(outputs[1], exported if isinstance(exported, bytes) else exported.encode())
            atomic.write_bytes(outputs[2], encode_png(picture))
        return outputs

    def _with_samples(self, main: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
        """The picture with the drawn poses in rows of four below it."""
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
        return np.concatenate([main, wide[:, : main.shape[1]]])  # type: ignore[return-value]


class Scene:
    """A photograph at the size of the results' pictures."""

    def __init__(self, photograph: Photograph) -> None:
        self.zoom = min(1.0, LONGEST_SIDE / max(photograph.size))
        size = tuple(max(1, round(length * self.zoom)) for length in photograph.size)
        small = self.zoom < 1
        self.pixels = cv2.resize(photograph.pixels, size, interpolation=cv2.INTER_AREA) if small else photograph.pixels

    def overlay(self, found: Sequence[Prediction], painter: BodyPainter) -> NDArray[np.uint8]:
        """(H, W, 3): the bodies over the photograph, the farthest first."""
        picture = np.asarray(self.pixels, np.float32) / 255 * 0.9
        order = sorted(range(len(found)), key=lambda i: -float(found[i].joints[0, 2]))
        for index in order:
            place = found[index].place
            if place is not None:
                K = np.diag([self.zoom, self.zoom, 1.0]) @ place.K
                colour = PALETTE[index % len(PALETTE)]
                painted = painter.paint(found[index].vertices.numpy(), colour, K, picture)
                picture = painted.astype(np.float32) / 255
        return np.round(picture * 255).astype(np.uint8)

    def beside(self, prediction: Prediction, painter: BodyPainter) -> NDArray[np.uint8]:
        """The photograph with the square that was looked at, and beside it the body over it."""
        marked = self.pixels.copy()
        if prediction.seen is not None:
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
            outline = np.round(prediction.seen.region.to_picture(corners) * self.zoom).astype(np.int32)
            cv2.polylines(marked, [outline], True, WHITE, 2)
        return np.concatenate([marked, self.overlay([prediction], painter)], axis=1)


def spoken(path: Path) -> str:
    """A path for a terminal, whatever bytes it holds."""
    return os.fsencode(path).decode("utf-8", "replace")
