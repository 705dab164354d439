"""Everyone in a picture: the detector proposes, the landmark network decides and says where each body reaches.

A proposal becomes a person when the landmark network sees one in it. Its square is then laid around the landmarks
themselves, upright and turned as the torso is, and the one that the network is surest of is kept. Proposals that end
in the same landmarks are one person.
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
"""Below it the landmark network sees no person (MediaPipe's default)."""
BOX_SCALE = 1.25
SAME_LANDMARKS = 0.2
"""Median distance of landmarks over the smaller body's size, below which two are one person."""
SAME_EXTENT = 0.6  # IoU
INSIDE = 0.8
PART_SURENESS = 2.0
"""A finding of which this share lies within a larger one is a part of that one, unless it is so many times as sure."""
HEAD = 0.55  # from the ears on to the top of the head, over shoulders to ears
MARGIN = 0.03  # flesh around the outer landmarks, over the longer side

_EARS = [LANDMARKS.index(name) for name in ("left_ear", "right_ear")]
_SHOULDERS = [LANDMARKS.index(name) for name in ("left_shoulder", "right_shoulder")]
_HIPS = [LANDMARKS.index(name) for name in ("left_hip", "right_hip")]

Look = Callable[[Tensor], Landmarks]
"""(B, 3, 256, 256) normalised pixels → what the landmark network finds."""


@dataclass(frozen=True, eq=False)
class Person:
    """region: the square that a crop should show; landmarks (33, 2) px, visibility (33,); score in [0, 1]: is it a
    person; extent: x0, y0, x1, y1 px of the whole body within the picture."""

    region: Region
    landmarks: NDArray[np.float64]
    visibility: NDArray[np.float64]
    score: float
    extent: NDArray[np.float64]

    @property
    def sureness(self) -> float:
        """How sure the detector is of the person, 0 to 1."""
        return self.score * float(self.visibility.mean())

    @property
    def size(self) -> float:
        """The larger extent of the person's landmarks, px."""
        return float(np.ptp(self.landmarks, axis=0).max())


def look(pixels: NDArray[np.uint8], regions: Sequence[Region], see: Look) -> list[Person]:
    """What the landmark network finds in each region of a picture (H, W, 3)."""
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
    """The person of whom the detector is surest."""
    return max(people, key=lambda person: person.sureness)


def find_people(pixels: NDArray[np.uint8], candidates: Sequence[Candidate], see: Look) -> list[Person]:
    """The people among the candidates, from left to right."""
    found = []
    for candidate in candidates:
        first = surest(look(pixels, both_ways(candidate.region), see))
        if first.score < LEAST_SCORE:
            continue
        best = surest([first, *look(pixels, around(first), see)])
        found.append((best, candidate.score * best.sureness))
    return sorted(distinct(found), key=lambda person: person.landmarks[_HIPS, 0].mean())


def both_ways(region: Region) -> list[Region]:
    """As it is turned, and upright."""
    return [Region(region.center, region.side, angle) for angle in dict.fromkeys((region.angle, 0.0))]


def around(person: Person) -> list[Region]:
    """The upright square around a body, and the one turned as its torso is."""
    low, high = whole(person.landmarks)
    upright = Region(tuple((low + high) / 2), BOX_SCALE * float((high - low).max()))
    turned = Region(upright.center, upright.side, torso_angle(person.landmarks))
    low, high = whole((person.landmarks - turned.center) @ turned.axes())
    center = np.asarray(turned.center) + turned.axes() @ ((low + high) / 2)
    return [upright, Region(tuple(center), BOX_SCALE * float((high - low).max()), turned.angle)]


def torso_angle(landmarks: NDArray[np.floating]) -> float:
    """How far the way from hips to shoulders is turned clockwise from the picture's upward direction, radians."""
    up = landmarks[_SHOULDERS].mean(0) - landmarks[_HIPS].mean(0)
    return float(np.arctan2(up[0], -up[1]))


def whole(landmarks: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(33, 2) → lower and upper corner of the body with its head and flesh."""
    ears = landmarks[_EARS].mean(0)
    points = np.concatenate([landmarks, [ears + HEAD * (ears - landmarks[_SHOULDERS].mean(0))]])
    low, high = points.min(0), points.max(0)
    margin = MARGIN * float((high - low).max())
    return low - margin, high + margin


def extent(landmarks: NDArray[np.floating], width: int, height: int) -> NDArray[np.float64]:
    """(33, 2) px → x0, y0, x1, y1 of the body's part within the picture."""
    return np.concatenate([corner.clip(0, [width, height]) for corner in whole(landmarks)])


def distinct(found: Sequence[tuple[Person, float]]) -> list[Person]:
    """The people, each once; with how sure detector and landmarks together are."""
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
    """Do two findings show one person?"""
    smaller = min(person.size, other.size)
    apart = float(np.median(np.linalg.norm(person.landmarks - other.landmarks, axis=1)))
    return apart < SAME_LANDMARKS * smaller or overlap(person.extent, other.extent) > SAME_EXTENT


def is_part(person: Person, other: Person) -> bool:
    """Does the first lie within the second, as a glove taken for a person does?"""
    low, high = np.maximum(person.extent[:2], other.extent[:2]), np.minimum(person.extent[2:], other.extent[2:])
    shared = float(np.prod((high - low).clip(0)))
    own, others = (float(np.prod(one.extent[2:] - one.extent[:2])) for one in (person, other))
    return own < others and shared > INSIDE * own
