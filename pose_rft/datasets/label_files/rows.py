"""Converts ready-made label files to one format: SPIN's npz, HMR2.0's and ProHMR's npz, MMHuman3D's HumanData npz.

All three list people by image name. They differ in field names, in whether `scale` is the side of the box over 200
(SPIN) or in px (ProHMR, HMR2.0), and in joint sets (24; 25 OpenPose + 19; 190 with a mask). Joints are returned in
SPIN's order of 24. Layouts: docs/formats.md, Label files of others; nkolot/SPIN,
nkolot/ProHMR, shubham-goel/4D-Humans hmr2/datasets/image_dataset.py, open-mmlab/mmhuman3d docs/human_data.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.joints import SPIN24
from pose_rft.datasets.common.labels import plausible
from pose_rft.errors import PoseRftError
from pose_rft.io.npz import names_in_npz, read_npz

PX_PER_SCALE = 200.0
# A box is between 20 and 4000 px wide: a scale above this number is in px, one below it is the side over 200.
LARGEST_SCALE = 20.0
HMR2_JOINTS = 44  # 25 of OpenPose, then the first 19 of SPIN's 24
# Index in OpenPose-25 of each of SPIN's 24 joints, or -1. Nose, eyes and ears are not among HMR2.0's other 19.
FROM_OPENPOSE = (11, 10, 9, 12, 13, 14, 4, 3, 2, 5, 6, 7, *[-1] * 7, 0, 16, 15, 18, 17)
HUMAN_DATA_JOINTS = 190
OLD_HUMAN_DATA_JOINTS = 144
# Index in HumanData of each of SPIN's 24 joints (hips, neck, head and spine are its `_extra` joints).
FROM_HUMAN_DATA = (
    *(8, 5, 144, 145, 4, 7, 21, 19, 17, 16, 18, 20),
    *(146, 147, 148, 149, 150, 151, 152, 55, 57, 56, 59, 58),
)
NAMES = {"m": "male", "f": "female", "n": "neutral", "male": "male", "female": "female", "neutral": "neutral"}


JOINT_FIELDS = {
    *("part", "S", "keypoints2d", "keypoints3d"),
    *(f"{part}_keypoints_{axes}" for part in ("body", "extra") for axes in ("2d", "3d")),
}


@dataclass(frozen=True, eq=False)
class LabelRows:
    """N people. Fields that a file lacks are None.

    layout: `spin`, `hmr2`, `humandata`, or `camera` and `smplx` of `camera_rows.py`; images: image names as spelled in
    the file; center (N, 2), side (N,) px.
    pose (N, 24, 3) axis-angle, root in the camera frame; betas (N, 10); has_smpl (N,) bool; transl (N, 3) metres.
    broken (N,) bool: rows that should have a body but whose numbers are not finite.
    K (N, 3, 3) px: the camera in whose frame pose and transl are. smplx_joints (24,) bool: for SMPL-X bodies, the
    joints that SMPL shares (betas are 0 then).
    joints2d (N, 24, 3) px + confidence; joints3d (N, 24, 4) metres, relative to the file's own root, + confidence.
    """

    layout: str
    images: Sequence[str]
    center: np.ndarray
    side: np.ndarray
    pose: np.ndarray | None = None
    betas: np.ndarray | None = None
    has_smpl: np.ndarray | None = None
    broken: np.ndarray | None = None
    transl: np.ndarray | None = None
    joints2d: np.ndarray | None = None
    joints3d: np.ndarray | None = None
    genders: Sequence[str] | None = None
    K: np.ndarray | None = None
    smplx_joints: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if name not in ("layout", "smplx_joints") and values is not None and len(values) != len(self.images):
                raise ValueError(f"{len(values)} rows of `{name}` for {len(self.images)} pictures")

    def __len__(self) -> int:
        return len(self.images)


Fields = tuple[str, ...]
SPIN_FIELDS: Fields = (
    "imgname",
    "center",
    "scale",
    "pose",
    "shape",
    "betas",
    "has_smpl",
    "part",
    "S",
    "gender",
    "valid_fit",
)
HMR2_FIELDS: Fields = (
    *("imgname", "center", "scale", "body_pose", "has_body_pose", "betas", "has_betas", "gender", "pose", "shape"),
    *("body_keypoints_2d", "extra_keypoints_2d", "body_keypoints_3d", "extra_keypoints_3d"),
)
HUMAN_DATA_FIELDS: Fields = (
    *("image_path", "bbox_xywh", "smpl", "meta", "has_smpl", "keypoints2d", "keypoints2d_mask"),
    *("keypoints3d", "keypoints3d_mask"),
)


def read_label_rows(path: Path, joints: bool = True) -> LabelRows:
    """Reads the people of a label file, in file order; `joints=False` skips the joints, which are most of the file.

    Raises:
        PoseRftError: not an .npz, the layout is unknown, or fields are inconsistent.
    """
    from pose_rft.datasets.label_files.camera_rows import read_camera_rows  # which imports LabelRows from here

    names = names_in_npz(path)
    if (rows := read_camera_rows(path, names)) is not None:
        return rows
    if "image_path" in names:
        layout, fields, parse = "humandata", HUMAN_DATA_FIELDS, _human_data
    elif "imgname" in names and {"body_pose", "body_keypoints_2d", "extra_keypoints_2d"} & names:
        layout, fields, parse = "hmr2", HMR2_FIELDS, _hmr2
    elif "imgname" in names:
        layout, fields, parse = "spin", SPIN_FIELDS, _spin
    else:
        raise PoseRftError(
            f"{path} has neither `imgname` (SPIN, HMR2.0) nor `image_path` (HumanData) but "
            f"{', '.join(sorted(names)[:8])}; is it a label file?"
        )
    content = read_npz(path, [name for name in fields if joints or name not in JOINT_FIELDS])
    if kind := _unsupported(content):
        raise PoseRftError(f"{path} is {kind}, a format that no reader takes; docs/data.md lists those that are read.")
    try:
        return parse(content)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is no {layout} label file ({type(error).__name__}: {' '.join(str(error).split())[:120]}); "
            "download it again."
        ) from None


def _unsupported(content: Mapping[str, np.ndarray]) -> str | None:
    """Returns the name of a valid but unsupported format; None if the format is supported."""
    joints = {name: content[name].shape[1] for name in JOINT_FIELDS & content.keys() if content[name].ndim == 3}
    masks = {content[f"{name}_mask"].size for name in JOINT_FIELDS if f"{name}_mask" in content}
    if 17 in (joints.get("part"), joints.get("S")):
        return "MMPose's npz of Human3.6M or MPI-INF-3DHP with 17 joints"
    if OLD_HUMAN_DATA_JOINTS in masks or (not masks and joints.get("keypoints2d") == OLD_HUMAN_DATA_JOINTS):
        return "HumanData of the older convention with 144 joints"
    return None


def _spin(content: Mapping[str, Any]) -> LabelRows:
    images = texts(content["imgname"])
    count = len(images)
    pose = _maybe(content, "pose", count, 24, 3)
    fitted = flags(content.get("has_smpl"), count) & flags(content.get("valid_fit"), count)
    return LabelRows(
        layout="spin",
        images=images,
        **_boxes(content, count),
        **_smpl(pose, _maybe(content, "shape", count, -1), fitted, count),
        joints2d=_maybe(content, "part", count, 24, 3),
        joints3d=_maybe(content, "S", count, 24, 4),
        genders=_genders(content, count),
    )


def _hmr2(content: Mapping[str, Any]) -> LabelRows:
    images = texts(content["imgname"])
    count = len(images)
    pose = _maybe(content, "body_pose" if "body_pose" in content else "pose", count, 24, 3)
    betas = _maybe(content, "betas" if "betas" in content else "shape", count, -1)
    return LabelRows(
        layout="hmr2",
        images=images,
        **_boxes(content, count),
        **_smpl(pose, betas, content.get("has_body_pose"), count),
        joints2d=_merged(content, "2d", count, 3),
        joints3d=_merged(content, "3d", count, 4),
        genders=_genders(content, count),
    )


def _human_data(content: Mapping[str, Any]) -> LabelRows:
    images = texts(content["image_path"])
    count = len(images)
    boxes = np.asarray(content["bbox_xywh"], np.float64)[:, :4].reshape(count, 4)
    smpl = _dictionary(content.get("smpl"))
    pose = None
    if "body_pose" in smpl:
        root = np.asarray(smpl["global_orient"], np.float64).reshape(count, 1, 3)
        pose = np.concatenate([root, np.asarray(smpl["body_pose"], np.float64).reshape(count, 23, 3)], axis=1)
    betas = np.asarray(smpl["betas"], np.float64).reshape(count, -1) if "betas" in smpl else None
    return LabelRows(
        layout="humandata",
        images=images,
        center=boxes[:, :2] + boxes[:, 2:] / 2,
        side=boxes[:, 2:].max(axis=1),
        **_smpl(pose, betas, content.get("has_smpl"), count),
        transl=np.asarray(smpl["transl"], np.float64).reshape(count, 3) if "transl" in smpl else None,
        joints2d=_unmasked(content, "keypoints2d", count, 3),
        joints3d=_unmasked(content, "keypoints3d", count, 4),
        genders=_genders(_dictionary(content.get("meta")), count),
    )


def hmr2_joints(points: np.ndarray) -> np.ndarray:
    """Converts HMR2.0's 44 joints (..., 44, C) to SPIN's order of 24 (..., 24, C), confidence last.

    The 19 joints after OpenPose's 25 take precedence; where one is not labelled, OpenPose's joint is used.
    """
    openpose, extra = points[..., :25, :], points[..., 25:, :]
    found = np.zeros((*points.shape[:-2], len(SPIN24), points.shape[-1]), points.dtype)
    found[..., : extra.shape[-2], :] = extra
    for joint, place in enumerate(FROM_OPENPOSE):
        if place >= 0:
            instead = found[..., joint, -1] <= 0
            found[..., joint, :] = np.where(instead[..., None], openpose[..., place, :], found[..., joint, :])
    return found


def _merged(content: Mapping[str, Any], axes: str, count: int, columns: int) -> np.ndarray | None:
    body = _maybe(content, f"body_keypoints_{axes}", count, 25, columns)
    extra = _maybe(content, f"extra_keypoints_{axes}", count, 19, columns)
    if body is None and extra is None:
        return None
    body = np.zeros((count, 25, columns)) if body is None else body
    extra = np.zeros((count, 19, columns)) if extra is None else extra
    return hmr2_joints(np.concatenate([body, extra], axis=1))


def _unmasked(content: Mapping[str, Any], name: str, count: int, columns: int) -> np.ndarray | None:
    """Restores the joints that HumanData omits because its mask marks them empty (`__keypoints_compressed__`)."""
    if name not in content:
        return None
    points = np.asarray(content[name], np.float64)
    mask = np.asarray(content.get(f"{name}_mask", np.ones(HUMAN_DATA_JOINTS))).astype(bool).ravel()
    if len(mask) != HUMAN_DATA_JOINTS:
        raise ValueError(f"{name}_mask has {len(mask)} entries, expected {HUMAN_DATA_JOINTS}")
    full = np.zeros((count, HUMAN_DATA_JOINTS, columns))
    if points.shape[1] == HUMAN_DATA_JOINTS:
        full[:] = points
    else:
        full[:, mask] = points
    full[:, ~mask] = 0
    return full[:, list(FROM_HUMAN_DATA)]


def side_px(scale: np.ndarray) -> np.ndarray:
    """Converts scale (N,) or (N, 2) to box sides (N,) px; the median tells whether it is in px or the side over 200."""
    longer = np.asarray(scale, np.float64).reshape(len(scale), -1).max(axis=1)
    in_px = len(longer) > 0 and float(np.median(longer)) > LARGEST_SCALE
    return longer if in_px else longer * PX_PER_SCALE


def _boxes(content: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    return {
        "center": np.asarray(content["center"], np.float64).reshape(count, 2),
        "side": side_px(np.asarray(content["scale"]).reshape(count, -1)),
    }


def _smpl(pose: np.ndarray | None, betas: np.ndarray | None, has: Any, count: int) -> dict[str, Any]:
    if pose is None:
        return {}
    shape = np.zeros((count, 10)) if betas is None else betas[:, :10].reshape(count, 10)
    sound = plausible(pose).all(axis=(1, 2)) & plausible(shape).all(axis=1)
    there = flags(has, count)
    return {"pose": pose, "betas": shape, "has_smpl": there & sound, "broken": there & ~sound}


def flags(value: Any, count: int) -> np.ndarray:
    """Converts a column of 0 and 1 to (N,) bool; all true if the file lacks it."""
    return np.ones(count, bool) if value is None else np.asarray(value).reshape(count) > 0


def _maybe(content: Mapping[str, Any], name: str, count: int, *shape: int) -> np.ndarray | None:
    return np.asarray(content[name], np.float64).reshape(count, *shape) if name in content and count else None


def _genders(content: Mapping[str, Any], count: int) -> list[str] | None:
    if "gender" not in content:
        return None
    values = texts(content["gender"])
    return [NAMES.get(value.lower(), "neutral") for value in values] if len(values) == count else None


def _dictionary(value: Any) -> dict[str, Any]:
    """Returns the dictionary in an object array; empty if there is no array."""
    return {} if value is None else dict(np.asarray(value, object).item())


def texts(values: Any) -> list[str]:
    """Converts a column of names, which may be bytes, to strings."""
    return [v.decode("latin1") if isinstance(v, bytes) else str(v) for v in np.asarray(values).ravel().tolist()]
