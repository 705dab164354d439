"""Automatic captions of poses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pose_rft.captions.draws import Draws
from pose_rft.captions.geometry import pose_bodies
from pose_rft.captions.posecodes import posecodes
from pose_rft.captions.sentences import caption


def describe_pose(rotations: Any, rest_joints: Any, rng: np.random.Generator, n: int = 1) -> list[str]:
    """`n` captions of one pose that differ in wording, order and choice of facts.

    Args:
        rotations: (24, 3, 3) local rotations (numpy or torch), root in the AMASS frame without heading.
        rest_joints: (24, 3) joints of the body model at rest, metres.
        rng: the same state gives the same captions.
    """
    return describe_poses(np.asarray(rotations)[None], rest_joints, [rng], n)[0]


def describe_poses(
    rotations: Any, rest_joints: Any, rngs: Sequence[np.random.Generator], n: int = 1
) -> list[list[str]]:
    """`n` captions of each pose: (N, 24, 3, 3) rotations, (24, 3) or (N, 24, 3) rest joints, one generator per pose."""
    codes = posecodes(pose_bodies(np.asarray(rotations), np.asarray(rest_joints)))
    captions = []
    for own, rng in zip(codes, rngs, strict=True):
        with Draws(rng) as draws:
            captions.append([caption(own, draws) for _ in range(n)])
    return captions
