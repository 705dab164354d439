"""Finds everyone in a picture: the detector proposes people, the landmark network accepts and localises them.

A proposal becomes a person if the landmark network finds one in it. Two more squares are then fitted to the landmarks,
one upright and one rotated with the torso; the view in which the network is most confident is kept. Proposals with the
same landmarks are merged.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pose_rft.policy.blazepose import LANDMARKS, Landmarks
from pose_rft.policy.config import IMAGENET_NORM
from pose_rft.policy.person_crops import normalise
from pose_rft.predict.person_detector import Candidate, overlap
from pose_rft.predict.regions import Region

CROP = 256
LEAST_SCORE = 0.5
"""A lower score of the landmark network means that there is no person (MediaPipe's default)."""
BOX_SCALE = 1.25
SAME_LANDMARKS = 0.2
"""Two findings are one person if their landmarks' median distance is below this fraction of the smaller one's size."""
SAME_EXTENT = 0.6  # IoU
INSIDE = 0.8
PART_SURENESS = 2.0
"""A finding that lies in a larger one by more than INSIDE is part of it, unless PART_SURENESS times as confident."""
HEAD = 0.55  # distance from ears to top of head, relative to that from shoulders to ears
MARGIN = 0.03  # body beyond the outer landmarks, relative to the longer side

_EARS = [LANDMARKS.index(name) for name in ("left_ear", "right_ear")]
_SHOULDERS = [LANDMARKS.index(name) for name in ("left_shoulder", "right_shoulder")]
_HIPS = [LANDMARKS.index(name) for name in ("left_hip", "right_hip")]

Look = Callable[[Tensor], Landmarks]
"""(B, 3, 256, 256) normalised pixels → the landmark network's output."""


@dataclass(frozen=True, eq=False)
class Person:
    """region: the square to crop; landmarks (33, 2) px, visibility (33,); score in [0, 1]: confidence that it is a
    person; extent: x0, y0, x1, y1 px of the whole body within the picture."""

    region: Region
    landmarks: NDArray[np.float64]
    visibility: NDArray[np.float64]
    score: float
    extent: NDArray[np.float64]

    @property
    def sureness(self) -> float:
        """The landmark network's confidence in the person, 0 to 1: the score times the mean visibility."""
        return self.score * float(self.visibility.mean())

    @property
    def size(self) -> float:
        """The larger extent of the person's landmarks, px."""
        return float(np.ptp(self.landmarks, axis=0).max())


def look(pixels: NDArray[np.uint8], regions: Sequence[Region], see: Look) -> list[Person]:
    """Runs the landmark network on each region of a picture (H, W, 3)."""
    if not regions:
        return []
    crops = np.stack([region.cut(pixels, CROP) for region in regions])
    with torch.inference_mode():
        found = see(normalise(crops, IMAGENET_NORM))
    people = []
    for index, region in enumerate(regions):
        points = region.to_picture(found.points[index, :, :2].double().numpy())
        visibility, score = found.visibility[index].double().numpy(), float(found.score[index])
        people.append(Person(region, points, visibility, score, extent(points, pixels.shape[1], pixels.shape[0])))
    return people


def surest(people: Iterable[Person]) -> Person:
    """Returns the person with the highest confidence."""
    return max(people, key=lambda person: person.sureness)


def find_people(pixels: NDArray[np.uint8], candidates: Sequence[Candidate], see: Look) -> list[Person]:
    """Returns the people among the candidates, from left to right."""
    found = []
    for candidate in candidates:
        first = surest(look(pixels, both_ways(candidate.region), see))
        if first.score < LEAST_SCORE:
            continue
        best = surest([first, *look(pixels, around(first), see)])
        found.append((best, candidate.score * best.sureness))
    return sorted(distinct(found), key=lambda person: person.landmarks[_HIPS, 0].mean())


def both_ways(region: Region) -> list[Region]:
    """Returns the region as it is rotated, and upright."""
    return [Region(region.center, region.side, angle) for angle in dict.fromkeys((region.angle, 0.0))]


def around(person: Person) -> list[Region]:
    """Returns the upright square around a body, and the one rotated with its torso."""
    low, high = whole(person.landmarks)
    upright = Region(tuple((low + high) / 2), BOX_SCALE * float((high - low).max()))
    turned = Region(upright.center, upright.side, torso_angle(person.landmarks))
    low, high = whole((person.landmarks - turned.center) @ turned.axes())
    center = np.asarray(turned.center) + turned.axes() @ ((low + high) / 2)
    return [upright, Region(tuple(center), BOX_SCALE * float((high - low).max()), turned.angle)]


def torso_angle(landmarks: NDArray[np.floating]) -> float:
    """Returns the clockwise angle from the picture's up direction to the hips-to-shoulders direction, radians."""
    up = landmarks[_SHOULDERS].mean(0) - landmarks[_HIPS].mean(0)
    return float(np.arctan2(up[0], -up[1]))


def whole(landmarks: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(33, 2) → minimum and maximum corner of the body, including the head and a margin."""
    ears = landmarks[_EARS].mean(0)
    points = np.concatenate([landmarks, [ears + HEAD * (ears - landmarks[_SHOULDERS].mean(0))]])
    low, high = points.min(0), points.max(0)
    margin = MARGIN * float((high - low).max())
    return low - margin, high + margin


def extent(landmarks: NDArray[np.floating], width: int, height: int) -> NDArray[np.float64]:
    """(33, 2) px → x0, y0, x1, y1 of the part of the body within the picture."""
    return np.concatenate([corner.clip(0, [width, height]) for corner in whole(landmarks)])


def distinct(found: Sequence[tuple[Person, float]]) -> list[Person]:
    """Returns each person once; `found` pairs people with the combined confidence of detector and landmarks."""
    kept: list[tuple[Person, float]] = []
    for person, sure in sorted(found, key=lambda pair: -pair[1]):
        if not any(same(person, other) for other, _ in kept):
            kept.append((person, sure))
    return [
        person
        for person, sure in kept
        if not any(is_part(person, other) and sure < PART_SURENESS * other_sure for other, other_sure in kept)
    ]


def same(person: Person, other: Person) -> bool:
    """Returns whether two findings show the same person."""
    smaller = min(person.size, other.size)
    apart = float(np.median(np.linalg.norm(person.landmarks - other.landmarks, axis=1)))
    return apart < SAME_LANDMARKS * smaller or overlap(person.extent, other.extent) > SAME_EXTENT


def is_part(person: Person, other: Person) -> bool:
    """Returns whether the first lies within the second, like a glove mistaken for a person."""
    low, high = np.maximum(person.extent[:2], other.extent[:2]), np.minimum(person.extent[2:], other.extent[2:])
    shared = float(np.prod((high - low).clip(0)))
    own, others = (float(np.prod(one.extent[2:] - one.extent[:2])) for one in (person, other))
    return own < others and shared > INSIDE * own
