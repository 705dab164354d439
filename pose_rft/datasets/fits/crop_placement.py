"""Places a body or 3D joints without translation in front of the camera that SPIN assumes for a crop.

Label files have root-relative joints and poses without translation. They also have the 2D positions of the joints in
the image, which determine the translation once a camera is assumed (`still_fit.crop_camera`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pose_rft.body.camera_fit import fit_box
from pose_rft.body.joints import SMPL24, SPIN24, to_smpl24
from pose_rft.body.model_file import Gender
from pose_rft.datasets.fits.sources import camera_smpl, place_on_joints2d, posed_joints
from pose_rft.datasets.fits.still_fit import crop_camera
from pose_rft.record import Camera, Smpl


@dataclass(frozen=True, eq=False)
class Placed:
    """smpl and joints3d (24, 4) in one camera's frame; camera is None if the file's own translation was kept."""

    smpl: Smpl | None
    joints3d: np.ndarray | None
    camera: Camera | None


def in_crop_camera(
    center: tuple[float, float],
    side: float,
    pose: np.ndarray | None,
    betas: np.ndarray | None,
    joints2d: np.ndarray | None,
    joints3d: np.ndarray | None,
    body_model: Path,
    source: str,
    gender: Gender = "neutral",
    transl: np.ndarray | None = None,
) -> Placed:
    """Places a row of a label file; 3D joints move with the body if there is one.

    Args:
        center, side: the crop, px; pose (24, 3) axis-angle and betas (10,), or None; joints2d (24, 3) px + confidence
        and joints3d (24, 4) metres + confidence in SPIN's order, or None; transl (3,): the file's own, kept unchanged.
    Raises:
        PoseRftError: there is a pose to place but no body model of this gender.
    """
    body = None if pose is None or betas is None else posed_joints(pose[None], betas[None], body_model, gender)[0]
    camera = crop_camera(center, side) if transl is None else None
    if body is not None:
        if camera is not None:
            transl = _shift(body, np.ones(len(body), bool), joints2d, center, side, camera)
        assert pose is not None and betas is not None and transl is not None
        smpl = camera_smpl(pose, betas, transl, source, gender)
        return Placed(smpl, None if joints3d is None else _moved(joints3d, body + transl), camera)
    if joints3d is None or camera is None:
        return Placed(None, None, None)
    points, _ = to_smpl24(joints3d, SPIN24)
    known = points[:, 3] > 0
    if not known.any():
        return Placed(None, None, None)
    return Placed(None, _plus(joints3d, _shift(points[:, :3], known, joints2d, center, side, camera)), camera)


def _shift(
    joints: np.ndarray,
    known: np.ndarray,
    joints2d: np.ndarray | None,
    center: tuple[float, float],
    side: float,
    camera: Camera,
) -> np.ndarray:
    """Returns the translation (3,) of the known SMPL joints (24, 3), from the 2D joints, else from the box."""
    shift = None
    if joints2d is not None:
        points, _ = to_smpl24(joints2d, SPIN24)
        points[~known, 2] = 0
        shift = place_on_joints2d(joints, points, SMPL24.name, camera.K)
    return fit_box(joints[known], np.array(center), side, camera.K) if shift is None else shift


def _moved(joints3d: np.ndarray, body: np.ndarray) -> np.ndarray | None:
    """Shifts SPIN's joints (24, 4) onto the placed SMPL joints (24, 3); None if no labelled joint is shared."""
    points, _ = to_smpl24(joints3d, SPIN24)
    known = points[:, 3] > 0
    return _plus(joints3d, (body[known] - points[known, :3]).mean(axis=0)) if known.any() else None


def _plus(joints3d: np.ndarray, shift: np.ndarray) -> np.ndarray:
    labelled = joints3d[:, 3:] > 0
    return np.where(labelled, joints3d + np.append(shift, 0.0), 0.0)
