"""Fits the position of a predicted body in a picture: to 2D points of its joints, or else to a box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pose_rft.body import camera_fit
from pose_rft.body.joints import H36M17, SMPL24
from pose_rft.body.smpl import BodyModel

LEAST_CONFIDENCE = 0.05
"""Points at or below this confidence are not used in the fit."""
LEAST_POINTS = 6
NEAREST = 0.1  # metres; no joint of a body may be nearer to the camera


@dataclass(frozen=True, eq=False)
class Points:
    """2D points detected on a person: names (n), xy (n, 2) px, confidence (n,) in [0, 1]."""

    names: Sequence[str]
    xy: NDArray[np.float64]
    confidence: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a body stands in a picture: K (3, 3) px, transl (3) metres, and what it was fitted to."""

    K: NDArray[np.float64]
    transl: NDArray[np.float64]
    fitted_to: Literal["keypoints", "box"]


def named_joints(body: BodyModel, joints: torch.Tensor, vertices: torch.Tensor) -> dict[str, NDArray[np.float64]]:
    """Returns {name: (3) metres} of a body's SMPL joints and, if it has a regressor, its nose."""
    found = {name: joints[index].double().numpy() for index, name in enumerate(SMPL24.joints)}
    if body.has_regressor:
        found["nose"] = body.h36m_joints(vertices[None])[0, H36M17.index("nose")].double().numpy()
    return found


def place(
    joints: dict[str, NDArray[np.float64]],
    points: Points | None,
    box: tuple[NDArray[np.float64], float],
    K: NDArray[np.float64],
) -> Place:
    """Fits the translation that aligns a body (joints by name, metres, pelvis near the origin) with the points.

    Args:
        box: centre and side, px, of the person; the fallback, e.g. if fewer than six points are confident.
    """
    if points is not None:
        used = [i for i, name in enumerate(points.names) if name in joints and points.confidence[i] > LEAST_CONFIDENCE]
        if len(used) >= LEAST_POINTS:
            body = np.stack([joints[points.names[i]] for i in used])
            seen = (points.xy[used], points.confidence[used], K)
            transl = camera_fit.refine_translation(body, *seen, camera_fit.fit_translation(body, *seen))
            if transl[2] + min(joint[2] for joint in joints.values()) > NEAREST:
                return Place(K, transl, "keypoints")
    every = np.stack(list(joints.values()))
    return Place(K, camera_fit.fit_box(every, *box, K), "box")
