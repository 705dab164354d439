"""Finds where people may be: runs MediaPipe's pose detector on the whole picture and on tiles of it.

The detector takes 224 x 224 px and was made for one nearby person. Tiles that overlap by half find smaller people and
those beside a larger one. The detector returns a box of the face and shoulders and four points. Two of these locate the
body: the middle of the hips, and a point above the head that marks the body's reach. Source of anchors, decoding and
region: MediaPipe's pose_detection_cpu.pbtxt and pose_detection_to_roi.pbtxt (Apache-2.0).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pose_rft.io.tflite import read_tflite
from pose_rft.policy import pretrained
from pose_rft.policy.graph_net import GraphNet
from pose_rft.predict.regions import Region

SIDE = 224
ANCHORS = ((8, 2), (16, 2), (32, 6))  # (stride px, anchors per cell)
REGION_SCALE = 1.25
SHARES = (1, 2, 3)
"""The sides of the tiles are the picture's longer side divided by each of these."""
LEAST_SCORE = 0.3  # low: the landmark network decides
SAME_BOX = 0.3  # IoU at which two detections count as one


@dataclass(frozen=True, eq=False)
class Candidate:
    """score in [0, 1]; region: the square around the whole body, rotated with the person; box: x0, y0, x1, y1 px of
    the upper part that the detector found."""

    score: float
    region: Region
    box: NDArray[np.float64]


class PersonDetector:
    """BlazePose's person detector for photographs.

    Raises:
        PoseRftError: the network was not fetched.
    """

    def __init__(self) -> None:
        graph, weights = read_tflite(pretrained.find(pretrained.DETECTOR))
        self.net = GraphNet(graph, weights).eval().requires_grad_(False)
        self.outputs = graph["outputs"]
        self.anchors = anchors()

    def __call__(self, pixels: NDArray[np.uint8], threshold: float = LEAST_SCORE) -> list[Candidate]:
        """Returns the candidates in a picture (H, W, 3) RGB, highest score first; one person may have several."""
        found = [
            one for square in tiles(pixels.shape[1], pixels.shape[0]) for one in self._in(pixels, square, threshold)
        ]
        return distinct(found)

    def _in(self, pixels: NDArray[np.uint8], square: Region, threshold: float) -> list[Candidate]:
        unit = torch.from_numpy(square.cut(pixels, SIDE).astype(np.float32) / 127.5 - 1)
        found = self.net(unit.permute(2, 0, 1)[None])
        raw, logits = (found[name][0].numpy() for name in self.outputs)
        scores = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64).clip(-100, 100)))
        candidates = []
        for index in np.flatnonzero(scores > threshold):
            values = raw[index].reshape(-1, 2) / SIDE  # centre, size, four points; fractions of the crop
            centre = square.to_picture(2 * (values[0] + self.anchors[index]) - 1)
            half = values[1] * square.side / 2
            points = square.to_picture(2 * (values[2:] + self.anchors[index]) - 1)
            box = np.concatenate([centre - half, centre + half])
            candidates.append(Candidate(float(scores[index]), body_region(points[0], points[1]), box))
        return candidates


def body_region(hips: NDArray[np.floating], above: NDArray[np.floating]) -> Region:
    """Returns the square centred on the hips that contains `above`, rotated so that `above` is straight up."""
    reach = above - hips
    side = 2 * REGION_SCALE * float(np.hypot(*reach))
    return Region((float(hips[0]), float(hips[1])), side, float(np.arctan2(reach[0], -reach[1])))


def anchors() -> NDArray[np.float64]:
    """(2254, 2): the anchor of each prediction, in [0, 1] over the crop."""
    rows = []
    for stride, per_cell in ANCHORS:
        cells = (np.arange(SIDE // stride) + 0.5) * stride / SIDE
        y, x = np.meshgrid(cells, cells, indexing="ij")
        rows.append(np.stack([x, y], -1).reshape(-1, 2).repeat(per_cell, 0))
    return np.concatenate(rows)


def tiles(width: int, height: int) -> list[Region]:
    """Returns squares of several sizes that cover a picture; neighbours overlap by half."""
    squares = []
    for share in SHARES:
        side = max(width, height) / share

        def centres(length: int, side: float = side) -> NDArray[np.float64]:
            if length <= side:
                return np.array([length / 2])
            count = int(np.ceil((length - side) / (side / 2))) + 1
            return np.linspace(side / 2, length - side / 2, count)

        squares += [Region((float(x), float(y)), side) for y in centres(height) for x in centres(width)]
    return squares


def distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Keeps the highest-scoring candidate of each group of overlapping boxes (non-maximum suppression)."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda c: -c.score):
        if all(overlap(one.box, other.box) < SAME_BOX for other in kept):
            kept.append(one)
    return kept


def overlap(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inside = float(np.prod((high - low).clip(0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (a, b)]
    return inside / (sum(areas) - inside) if inside else 0.0
