"""A plain skeleton and hand-made poses, so that caption tests need no body model."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import amass_to_camera, remove_heading
from pose_rft.body.joints import SMPL24

_LEFT = {
    "pelvis": (0, 0, 0),
    "left_hip": (0.1, -0.05, 0),
    "spine1": (0, 0.1, -0.02),
    "left_knee": (0.12, -0.47, 0),
    "spine2": (0, 0.24, -0.02),
    "left_ankle": (0.12, -0.9, -0.02),
    "spine3": (0, 0.32, -0.02),
    "left_foot": (0.13, -0.96, 0.12),
    "neck": (0, 0.53, -0.03),
    "left_collar": (0.07, 0.44, -0.02),
    "head": (0, 0.62, 0.02),
    "left_shoulder": (0.18, 0.47, -0.02),
    "left_elbow": (0.44, 0.47, -0.03),
    "left_wrist": (0.69, 0.47, -0.03),
    "left_hand": (0.77, 0.47, -0.04),
}
REST_JOINTS = np.array(
    [
        np.array(_LEFT[name.replace("right_", "left_")]) * ([-1, 1, 1] if name.startswith("right_") else [1, 1, 1])
        for name in SMPL24.joints
    ],
    dtype=float,
)
_UPRIGHT = amass_to_camera(torch.eye(3, dtype=torch.float64)).numpy()  # Rx(+90°) also lifts SMPL's y up to AMASS's z


def pose(**degrees: tuple[float, float, float]) -> np.ndarray:
    """(24, 3, 3) from joint name → rotation vector in degrees (SMPL's axes: x left, y up, z front); `root` = pelvis."""
    rotations = np.tile(np.eye(3), (24, 1, 1))
    for name, vector in degrees.items():
        rotations[SMPL24.index("pelvis" if name == "root" else name)] = Rotation.from_rotvec(
            np.radians(vector)
        ).as_matrix()
    root = torch.from_numpy(_UPRIGHT @ rotations[0])
    rotations[0] = remove_heading(root).numpy()
    return rotations


def random_poses(count: int, seed: int = 0, spread: float = 0.6) -> np.ndarray:
    """(count, 24, 3, 3) far from plausible, which geometry does not mind."""
    rng = np.random.default_rng(seed)
    local = Rotation.from_rotvec(rng.normal(scale=spread, size=(count * 24, 3))).as_matrix().reshape(count, 24, 3, 3)
    local[:, 0] = remove_heading(torch.from_numpy(_UPRIGHT @ local[:, 0])).numpy()
    return local
