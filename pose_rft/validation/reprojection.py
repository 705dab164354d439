"""Measures the self-consistency of records, one row per record, for `pose_rft.validation.run`.

Three converter bugs show nowhere else: a wrong camera or frame convention (3D joints and bodies do not project onto the
2D joints), a wrong lens model (they miss by a pixel), and swapped left and right (everything still projects well). The
side tests need no per-sample threshold: with sides swapped they fail for nearly everybody.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import project
from pose_rft.body.joints import LIMB_JOINTS, SMPL24, JointSet, joint_set, to_smpl24
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.io import pictures
from pose_rft.record import Image, Record

SIDEWAYS = 0.5  # left and right differ in the image if the x component of the body's left axis is at least this
FEWEST_LIMB_JOINTS = 4
IS_LIMB = np.isin(SMPL24.joints, LIMB_JOINTS)
MEASURED = [joint for joint in LIMB_JOINTS if not joint.endswith("_hip")]  # in every release, by markers or from images
BEHIND_CAMERA = 1e6  # reported as the distance if a visible joint lies behind the camera

MEASUREMENTS: dict[str, Any] = {
    "key": pl.String,
    "video": pl.String,  # subject, sequence and camera
    "image_as_declared": pl.Boolean,
    "finite": pl.Boolean,  # every number of joints, camera, box and body
    "camera_error": pl.Float64,  # largest |RᵀR - I|
    "largest_beta": pl.Float64,
    "reprojection": pl.Float64,  # px, worst joint of arms and legs: 3D joints onto 2D joints
    "reprojection_rest": pl.Float64,  # mm at the joint's depth, worst of the other joints, including hips
    "smpl_reprojection": pl.Float64,  # median limb joint of the SMPL body onto 2D joints, as fraction of the box side
    "smpl_joints_mm": pl.Float64,  # worst joint of the body, where the 3D labels are SMPL's own joints
    "side_by_feet": pl.Boolean,  # 3D joints: left × up points where the feet do
    "side_by_smpl_3d": pl.Boolean,  # 3D joints: right-to-left hip points along the SMPL root's left axis
    "side_by_smpl_2d": pl.Boolean,  # 2D joints: likewise in the image, if the root is seen from front or back
}


def measure(records: Sequence[Record], body_model: Callable[[str], NumpyBody]) -> pl.DataFrame:
    """Returns one row per record with the columns of `MEASUREMENTS`; null if a record lacks the necessary data.

    Args:
        body_model: returns the model of a gender; called only if a record has SMPL in the frame of a known camera.
    """
    bodies, lefts = camera_bodies(records, body_model), camera_lefts(records)
    rows = []
    for number, record in enumerate(records):
        row: dict[str, Any] = {"key": record.key}
        row["video"] = "/".join(filter(None, (record.subject, record.sequence, record.camera_id)))
        row["finite"] = is_finite(record)
        if record.image is not None:
            row["image_as_declared"] = is_as_declared(record.image)
        if record.camera is not None and record.camera.R is not None:
            R = record.camera.R
            proper = np.isfinite(R).all() and np.linalg.det(R) > 0
            row["camera_error"] = float(np.abs(R.T @ R - np.eye(3)).max()) if proper else 2.0
        if record.smpl is not None:
            row["largest_beta"] = float(np.abs(record.smpl.betas).max())
        row["reprojection"], row["reprojection_rest"] = reprojection(record)
        if number in bodies:
            row["smpl_reprojection"] = smpl_reprojection(record, bodies[number])
            row["smpl_joints_mm"] = smpl_joints_error(record, bodies[number])
        row |= sides(record, lefts.get(number))
        rows.append(row)
    return pl.DataFrame(rows, schema=MEASUREMENTS, orient="row")


def is_finite(record: Record) -> bool:
    """Whether all numbers of the record are finite."""
    groups = (vars(group) for group in (record.smpl, record.joints3d, record.joints2d, record.camera) if group)
    arrays = [value for group in groups for value in group.values() if isinstance(value, np.ndarray)]
    box = np.array([*record.box.center, record.box.side] if record.box else [])
    return all(bool(np.isfinite(array).all()) for array in (*arrays, box))


def is_as_declared(image: Image) -> bool:
    """Whether the encoded image has the size and format that the record declares."""
    try:
        return pictures.header(image.data) == pictures.Header(image.extension, image.width, image.height)
    except pictures.BadPicture:
        return False


def reprojection(record: Record) -> tuple[float | None, float | None]:
    """Returns the largest distances of projected 3D joints to the 2D joints (same joint set, both with confidence > 0).

    For arms and legs, which every release measures, in px. For all other joints, in mm at their depth: MPI-INF-3DHP
    interpolates hips and spine separately in 2D and 3D, so they miss by millimetres, which are more px at close range.
    """
    camera, joints3d, joints2d = record.camera, record.joints3d, record.joints2d
    if camera is None or joints3d is None or joints2d is None or joints3d.joint_set != joints2d.joint_set:
        return None, None
    known = (joints3d.points[:, 3] > 0) & (joints2d.points[:, 2] > 0)
    if (joints3d.points[known, 2] <= 0).any():
        return BEHIND_CAMERA, BEHIND_CAMERA
    points, names = joints3d.points[known, :3], np.array(joint_set(joints3d.joint_set).joints)[known]
    with np.errstate(invalid="ignore"):  # a camera that is not finite gives NaN, which fails
        pixels = np.linalg.norm(project(points, camera) - joints2d.points[known, :2], axis=1)
        millimetres = pixels * points[:, 2] / np.sqrt(np.abs(camera.K[0, 0] * camera.K[1, 1])) * 1000
    limb = np.isin(names, MEASURED)
    return tuple(float(v.max()) if len(v) else None for v in (pixels[limb], millimetres[~limb]))  # type: ignore[return-value]


def smpl_reprojection(record: Record, joints: np.ndarray) -> float | None:
    """Returns the median distance of a body's projected limb joints to the 2D joints, as fraction of the box side.

    joints: (24, 3) metres, camera frame.
    """
    smpl, camera, joints2d, box = record.smpl, record.camera, record.joints2d, record.box
    if smpl is None or camera is None or joints2d is None or box is None:
        return None
    points, in_set = to_smpl24(joints2d.points, joints2d.joint_set)
    wanted = IS_LIMB & in_set & smpl.valid & (points[:, 2] > 0)
    if wanted.sum() < FEWEST_LIMB_JOINTS:
        return None
    if (joints[wanted, 2] <= 0).any():
        return BEHIND_CAMERA
    return float(np.median(np.linalg.norm(project(joints[wanted], camera) - points[wanted, :2], axis=1)) / box.side)


def smpl_joints_error(record: Record, joints: np.ndarray) -> float | None:
    """Returns the largest distance, mm, of a body's joints (24, 3) to 3D labels regressed from the same body (3DPW)."""
    if record.joints3d is None or record.joints3d.joint_set != SMPL24.name:
        return None
    known = record.joints3d.points[:, 3] > 0
    error = np.linalg.norm(joints - record.joints3d.points[:, :3], axis=1)[known]
    return float(error.max() * 1000) if known.any() else None


def camera_bodies(records: Sequence[Record], body_model: Callable[[str], NumpyBody]) -> dict[int, np.ndarray]:
    """Maps record number → (24, 3) joints, metres, camera frame, for records with SMPL, 2D joints and a camera."""
    bodies: dict[int, np.ndarray] = {}
    by_gender: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        if record.smpl is not None and record.smpl.frame == "camera" and record.camera is not None and record.joints2d:
            by_gender.setdefault(record.smpl.gender, []).append(number)
    for gender, numbers in by_gender.items():
        smpls = [smpl for number in numbers if (smpl := records[number].smpl) is not None]
        vectors = np.stack([np.concatenate([smpl.global_orient[None], smpl.body_pose]) for smpl in smpls])
        rotations = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(-1, len(SMPL24), 3, 3)
        betas, transl = (np.stack([getattr(smpl, name) for smpl in smpls]) for name in ("betas", "transl"))
        bodies |= dict(zip(numbers, body_model(gender).joints(rotations, betas, transl), strict=True))
    return bodies


def camera_lefts(records: Sequence[Record]) -> dict[int, np.ndarray]:
    """Maps record number → (3,) the person's left in the camera frame, for records whose SMPL root is in that frame."""
    roots = {n: r.smpl.global_orient for n, r in enumerate(records) if r.smpl is not None and r.smpl.frame == "camera"}
    if not roots:
        return {}
    return dict(zip(roots, Rotation.from_rotvec(np.stack(list(roots.values()))).as_matrix()[:, :, 0], strict=True))


def sides(record: Record, left: np.ndarray | None) -> dict[str, bool]:
    """Runs the side tests that the record allows: True if left is the person's left; `left`: see `camera_lefts`."""
    result: dict[str, bool] = {}
    if record.joints3d is not None:
        points, kind = record.joints3d.points, joint_set(record.joints3d.joint_set)
        across = _between(points, kind, "right_hip", "left_hip")
        forward = _toes(points, kind)
        up = _between(points, kind, "pelvis", "neck")
        if across is not None and forward is not None and up is not None:
            result["side_by_feet"] = bool(np.cross(across, up) @ forward > 0)
        if across is not None and left is not None:
            result["side_by_smpl_3d"] = bool(across @ left > 0)
    if record.joints2d is not None and left is not None and abs(left[0]) >= SIDEWAYS:
        across = _between(record.joints2d.points, joint_set(record.joints2d.joint_set), "right_hip", "left_hip")
        if across is not None:
            result["side_by_smpl_2d"] = bool(across[0] * left[0] > 0)
    return result


def _between(points: np.ndarray, kind: JointSet, start: str, stop: str) -> np.ndarray | None:
    """Returns the vector between two joints, None unless both are visible; last column of `points`: confidence."""
    if start not in kind or stop not in kind:
        return None
    first, second = points[kind.index(start)], points[kind.index(stop)]
    return second[:-1] - first[:-1] if first[-1] > 0 and second[-1] > 0 else None


def _toes(points: np.ndarray, kind: JointSet) -> np.ndarray | None:
    """Returns the sum of both feet's directions, from ankle to toe."""
    toe = next((name for name in ("toe", "foot") if f"left_{name}" in kind), None)
    if toe is None:
        return None
    left, right = (_between(points, kind, f"{side}_ankle", f"{side}_{toe}") for side in ("left", "right"))
    return left + right if left is not None and right is not None else None
