"""Posed skeletons in the frames that captions refer to: the world (what is up), the pelvis, the chest and the head.

All measurements are batched over poses. The input frame is the AMASS frame without heading (see
`pose_rft.body.frames`): z up, +x to the left of a person who stands upright, -y in front.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pose_rft.body.joints import SMPL24

SIDES = ("left", "right")
OUTWARD = np.array([1.0, -1.0])  # +x of a part's frame is the person's left: outward on the left, inward on the right


@dataclass(frozen=True, eq=False)
class Body:
    """joints (N, 24, 3) metres; frames (N, 24, 3, 3): columns are the person's left, up and front as seen by each part.

    Both in the AMASS frame without heading.
    """

    joints: np.ndarray
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.joints)

    def joint(self, name: str) -> np.ndarray:
        """(N, 3)."""
        return self.joints[:, SMPL24.index(name)]

    def pair(self, name: str) -> np.ndarray:
        """(N, 2, 3): the joint of the left and of the right side."""
        return np.stack([self.joint(f"{side}_{name}") for side in SIDES], axis=1)

    def frame(self, name: str) -> np.ndarray:
        """(N, 3, 3)."""
        return self.frames[:, SMPL24.index(name)]

    def seen_from(self, part: str, vectors: np.ndarray) -> np.ndarray:
        """World vectors (N, ..., 3) as (left, up, front) of the part's frame."""
        return np.einsum("nij,n...i->n...j", self.frame(part), vectors)

    @cached_property
    def leg_length(self) -> np.ndarray:
        """(N,) hip to ankle along the bones, metres: the unit for heights and distances."""
        thigh, shin = self.pair("knee") - self.pair("hip"), self.pair("ankle") - self.pair("knee")
        return (np.linalg.norm(thigh, axis=-1) + np.linalg.norm(shin, axis=-1)).mean(axis=1)

    @cached_property
    def heights(self) -> np.ndarray:
        """(N, 24) metres above the lowest joint."""
        z = self.joints[..., 2]
        return z - z.min(axis=1, keepdims=True)

    def height(self, name: str) -> np.ndarray:
        """(N,) metres above the lowest joint."""
        return self.heights[:, SMPL24.index(name)]

    def pair_height(self, name: str) -> np.ndarray:
        """(N, 2)."""
        return np.stack([self.height(f"{side}_{name}") for side in SIDES], axis=1)

    @cached_property
    def torso_up(self) -> np.ndarray:
        """(N, 3) unit vector from the pelvis to the neck."""
        return unit(self.joint("neck") - self.joint("pelvis"))

    @cached_property
    def torso_tilt(self) -> np.ndarray:
        """(N,) degrees between the torso and the vertical: 0 upright, 90 horizontal, 180 upside down."""
        return degrees_between(self.torso_up, np.array([0.0, 0.0, 1.0]))

    @cached_property
    def elbow_flexion(self) -> np.ndarray:
        """(N, 2) degrees: 0 straight."""
        upper, fore = self.pair("elbow") - self.pair("shoulder"), self.pair("wrist") - self.pair("elbow")
        return degrees_between(upper, fore)

    @cached_property
    def knee_flexion(self) -> np.ndarray:
        """(N, 2) degrees: 0 straight."""
        thigh, shin = self.pair("knee") - self.pair("hip"), self.pair("ankle") - self.pair("knee")
        return degrees_between(thigh, shin)

    @cached_property
    def upper_arms(self) -> np.ndarray:
        """(N, 2, 3) unit directions in the chest frame: (outward, up, front)."""
        return outward(self.seen_from("spine3", unit(self.pair("elbow") - self.pair("shoulder"))))

    @cached_property
    def forearms(self) -> np.ndarray:
        """(N, 2, 3) unit directions in the chest frame: (outward, up, front)."""
        return outward(self.seen_from("spine3", unit(self.pair("wrist") - self.pair("elbow"))))

    @cached_property
    def thighs(self) -> np.ndarray:
        """(N, 2, 3) unit directions in the pelvis frame: (outward, up, front)."""
        return outward(self.seen_from("pelvis", unit(self.pair("knee") - self.pair("hip"))))

    @cached_property
    def shins(self) -> np.ndarray:
        """(N, 2, 3) unit directions in the pelvis frame: (outward, up, front)."""
        return outward(self.seen_from("pelvis", unit(self.pair("ankle") - self.pair("knee"))))


def pose_bodies(rotations: np.ndarray, rest_joints: np.ndarray) -> Body:
    """Computes forward kinematics for a batch of poses.

    Args:
        rotations: (N, 24, 3, 3) local rotations, joint 0 = root in the AMASS frame without heading.
        rest_joints: (24, 3) or (N, 24, 3) joints of the body model at rest, metres, in the model's own frame.
    Raises:
        ValueError: a shape differs from the above.
    """
    rotations, rest = np.asarray(rotations, np.float64), np.asarray(rest_joints, np.float64)
    if rotations.ndim != 4 or rotations.shape[1:] != (24, 3, 3) or rest.shape[-2:] != (24, 3):
        raise ValueError(f"expected (N, 24, 3, 3) and (24, 3), got {rotations.shape} and {rest.shape}")
    rest = np.broadcast_to(rest, (len(rotations), 24, 3))
    frames, joints = np.empty_like(rotations), np.empty_like(rest)
    frames[:, 0], joints[:, 0] = rotations[:, 0], 0.0
    assert SMPL24.parents is not None
    for child, parent in enumerate(SMPL24.parents[1:], start=1):
        frames[:, child] = frames[:, parent] @ rotations[:, child]
        bone = rest[:, child] - rest[:, parent]
        joints[:, child] = joints[:, parent] + np.einsum("nij,nj->ni", frames[:, parent], bone)
    return Body(joints, frames)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (…, 3) divided by their length."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-9)


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two (..., 3) → (...) angle between them, degrees in [0, 180]."""
    return np.degrees(np.arccos((unit(a) * unit(b)).sum(-1).clip(-1.0, 1.0)))


def outward(pairs: np.ndarray) -> np.ndarray:
    """(N, 2, 3) vectors of the left and right side as (left, up, front) → (outward, up, front)."""
    return pairs * np.stack([OUTWARD, np.ones(2), np.ones(2)], axis=-1)
