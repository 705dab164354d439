"""Label files with camera-frame bodies or SMPL-X bodies: npz of BEDLAM and CameraHMR, HumanData of SMPLer-X.

- BEDLAM and CameraHMR (COCO, MPII, 3DPW, H36M, … and their own scenes): `imgname`, `center`, `scale` = side over 200,
  `pose_cam` (N, 72), or (N, 165) of SMPL-X, `shape`, `trans_cam` and `cam_ext` (translations are added), `cam_int`.
  The number of joints in `gtkps` identifies the joint set: HMR2.0's 44, SMPL's 45, SMPL-X's 127 or SPIN's 24.
- SMPLer-X: HumanData with a dictionary `smplx` instead of `smpl`; `keypoints2d_smplx` has HumanData's 190 joints with a
  mask, or SMPL-X's own order.

For an SMPL-X body, the pose of 22 joints carries over to SMPL; hands and shape do not. Sources: pixelite1201/BEDLAM
data_processing/df_full_body.py, pixelite1201/CameraHMR core/datasets/dataset_train.py, MMHuman3D docs/human_data.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.joints import LIMB_JOINTS, SMPL24, SPIN24
from pose_rft.datasets.label_files.rows import (
    FROM_HUMAN_DATA,
    HMR2_JOINTS,
    HUMAN_DATA_JOINTS,
    PX_PER_SCALE,
    LabelRows,
    hmr2_joints,
    plausible,
    texts,
)
from pose_rft.errors import PoseRftError
from pose_rft.io.npz import read_npz

BODY_JOINTS = 22  # shared by SMPL and SMPL-X
FIELDS = (
    *("imgname", "center", "scale", "pose_cam", "shape", "trans_cam", "cam_int", "cam_ext", "gtkps"),
    *("image_path", "bbox_xywh", "smplx", "keypoints2d_smplx", "keypoints2d_smplx_mask"),
)
SMPL_JOINTS, SMPLX_JOINTS = 45, (127, 144)  # joints and extra points of each body model; SMPL's 24 or 22 come first
SHARED = (*LIMB_JOINTS, "neck")  # the same anatomical points in SMPL's and SPIN's sets


def read_camera_rows(path: Path, names: set[str]) -> LabelRows | None:
    """Reads the people of such a file; returns None for other layouts. `names`: the arrays in the file.

    Raises:
        PoseRftError: fields are inconsistent.
    """
    if {"imgname", "pose_cam"} <= names:
        parse, maker = _with_camera, "BEDLAM or CameraHMR"
    elif {"image_path", "smplx"} <= names and "smpl" not in names:
        parse, maker = _smplx_human_data, "SMPLer-X"
    else:
        return None
    content = read_npz(path, FIELDS)
    try:
        return parse(content)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(
            f"{path} has no labels as {maker} writes them ({cause}); docs/data.md lists what is read."
        ) from None


def _with_camera(content: Mapping[str, Any]) -> LabelRows:
    images = texts(content["imgname"])
    count = len(images)
    pose = np.asarray(content["pose_cam"], np.float64).reshape(count, -1)
    is_smplx = pose.shape[1] > 3 * len(SMPL24)
    transl = np.zeros((count, 3))
    if "trans_cam" in content:
        transl += np.asarray(content["trans_cam"], np.float64).reshape(count, 3)
    if "cam_ext" in content:
        transl += np.asarray(content["cam_ext"], np.float64).reshape(count, 4, 4)[:, :3, 3]
    joints2d = None
    if "gtkps" in content:
        joints2d = _keypoints(np.asarray(content["gtkps"], np.float64).reshape(count, -1, 3))
    return LabelRows(
        layout="camera",
        images=images,
        center=np.asarray(content["center"], np.float64).reshape(count, 2),
        side=np.asarray(content["scale"], np.float64).reshape(count) * PX_PER_SCALE,
        **_body(pose.reshape(count, -1, 3), None if is_smplx else np.asarray(content["shape"], np.float64)),
        transl=_before_camera(transl),
        K=np.asarray(content["cam_int"], np.float64).reshape(count, 3, 3),
        joints2d=joints2d,
    )


def _smplx_human_data(content: Mapping[str, Any]) -> LabelRows:
    images = texts(content["image_path"])
    count = len(images)
    boxes = np.asarray(content["bbox_xywh"], np.float64).reshape(count, -1)[:, :4]
    body = dict(np.asarray(content["smplx"], object).item())
    root = np.asarray(body["global_orient"], np.float64).reshape(count, 1, 3)
    pose = np.concatenate([root, np.asarray(body["body_pose"], np.float64).reshape(count, -1, 3)], axis=1)
    joints2d = None
    if "keypoints2d_smplx" in content:
        joints2d = _human_data_keypoints(content["keypoints2d_smplx"], content.get("keypoints2d_smplx_mask"))
    return LabelRows(
        layout="smplx",
        images=images,
        center=boxes[:, :2] + boxes[:, 2:] / 2,
        side=boxes[:, 2:].max(axis=1),
        **_body(pose, None),
        transl=_before_camera(np.asarray(body["transl"], np.float64).reshape(count, 3)) if "transl" in body else None,
        joints2d=joints2d,
    )


def _body(pose: np.ndarray, betas: np.ndarray | None) -> dict[str, Any]:
    """Returns the body fields for poses (N, J, 3); poses without betas are SMPL-X's, of which 22 joints are kept."""
    count = len(pose)
    kept = BODY_JOINTS if betas is None else len(SMPL24)
    if pose.shape[1] < kept:
        raise ValueError(f"poses have {pose.shape[1]} joints, expected {kept}")
    body = np.zeros((count, len(SMPL24), 3))
    body[:, :kept] = pose[:, :kept]
    shape = np.zeros((count, 10)) if betas is None else betas.reshape(count, -1)[:, :10].reshape(count, 10)
    own = np.arange(len(SMPL24)) < BODY_JOINTS if betas is None else None
    sound = plausible(body).all(axis=(1, 2)) & plausible(shape).all(axis=1)
    return {"pose": body, "betas": shape, "has_smpl": sound, "broken": ~sound, "smplx_joints": own}


def _before_camera(transl: np.ndarray) -> np.ndarray:
    """Replaces translations (N, 3) at or behind the camera by NaN; such values mean that the file has none."""
    with np.errstate(invalid="ignore"):
        return np.where(transl[:, 2:] > 0, transl, np.nan)


def _keypoints(points: np.ndarray) -> np.ndarray:
    """Converts (N, J, 3) of any joint set in these files to (N, 24, 3) in SPIN's order.

    Raises:
        ValueError: the number of joints is not supported.
    """
    count = points.shape[1]
    if count == len(SPIN24):
        return points
    if count == HMR2_JOINTS:
        return hmr2_joints(points)
    if count not in (SMPL_JOINTS, *SMPLX_JOINTS):
        raise ValueError(f"{count} joints in two dimensions")
    found = np.zeros((len(points), len(SPIN24), 3))
    found[:, SPIN24.indices(SHARED)] = points[:, SMPL24.indices(SHARED)]
    return found


def _human_data_keypoints(points: Any, mask: Any) -> np.ndarray:
    """Converts HumanData's 190 joints, of which the mask keeps some, or SMPL-X's to (N, 24, 3) in SPIN's order."""
    points = np.asarray(points, np.float64)[..., :3]
    kept = np.ones(HUMAN_DATA_JOINTS, bool) if mask is None else np.asarray(mask).astype(bool).ravel()
    if points.shape[1] not in (HUMAN_DATA_JOINTS, kept.sum()):
        return _keypoints(points)
    full = np.zeros((len(points), HUMAN_DATA_JOINTS, 3))
    if points.shape[1] == HUMAN_DATA_JOINTS:
        full[:, kept] = points[:, kept]
    else:
        full[:, kept] = points
    return full[:, list(FROM_HUMAN_DATA)]
