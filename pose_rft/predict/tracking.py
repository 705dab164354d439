"""Tracks the people of a video from frame to frame and smooths their rotations.

Tracker and smoother are causal, so memory use does not grow with the length of a video, and both can resume from the
lines written for the last frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from pose_rft.predict.person_detector import overlap

SAME_PERSON = 0.3
"""Minimum intersection over union of two boxes of the same person."""
LONGEST_GAP = 1.0  # seconds out of sight after which a person counts as new


@dataclass
class Tracker:
    """Gives each box of a frame the number of the person whose last box it overlaps most, or a new one."""

    last: dict[int, tuple[float, NDArray[np.float64]]] = field(default_factory=dict)
    """Number → time (seconds) and box (x0, y0, x1, y1 px) when the person was last seen."""
    next: int = 0

    def numbers(self, time: float, boxes: Sequence[NDArray[np.float64]]) -> list[int]:
        """Returns the people's numbers, in the order of the boxes."""
        self.last = {number: seen for number, seen in self.last.items() if time - seen[0] <= LONGEST_GAP}
        pairs = sorted(
            ((overlap(box, old), number, i) for i, box in enumerate(boxes) for number, (_, old) in self.last.items()),
            reverse=True,
        )
        found: dict[int, int] = {}
        for share, number, i in pairs:
            if share >= SAME_PERSON and i not in found and number not in found.values():
                found[i] = number
        for i, box in enumerate(boxes):
            if i not in found:
                found[i], self.next = self.next, self.next + 1
            self.last[found[i]] = (time, box)
        return [found[i] for i in range(len(boxes))]


@dataclass
class Smoother:
    """Exponential smoothing with a time constant: of rotations on SO(3), and of the translation.

    From the last smoothed rotation S and the new R: S · exp(a · log(Sᵀ R)) with a = 1 - exp(-Δt / seconds), per joint.
    `last`: number → time, rotations (24, 3, 3) and translation (3).
    """

    seconds: float
    last: dict[int, tuple[float, Tensor, Tensor]] = field(default_factory=dict)

    def smooth(self, number: int, time: float, rotations: Tensor, transl: Tensor) -> tuple[Tensor, Tensor]:
        """Blends a person's rotations and translation with those of the previous frame."""
        before = self.last.get(number)
        if before is not None:
            then, turned, moved = before
            share = 1 - math.exp(-(time - then) / self.seconds)
            step = roma.rotmat_to_rotvec(turned.mT.double() @ rotations.double())
            rotations = (turned.double() @ roma.rotvec_to_rotmat(share * step)).to(rotations)
            transl = torch.lerp(moved.to(transl), transl, share)
        self.last = {
            other: seen for other, seen in self.last.items() if time - seen[0] <= LONGEST_GAP and other != number
        }
        self.last[number] = (time, rotations, transl)
        return rotations, transl
