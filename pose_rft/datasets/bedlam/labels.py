"""BEDLAM's label files: one npz per scene, one row per person and image (data_processing/ReadMe.md, df_full_body.py).

Columns are plain arrays; `motion_info`, which is pickled, and what no sample needs are not read. The SMPL-X version has
poses of 165 numbers and 127 keypoints, the SMPL version 72 and 45: body joints 0..21 of both are SMPL's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pose_rft.body.joints import SMPL24, SMPLX127
from pose_rft.datasets.bedlam.script import BODY_JOINTS
from pose_rft.errors import PoseRftError
from pose_rft.io.npz import read_npz
from pose_rft.record import Keypoints, Smpl

# Shapes of a row: SMPL-X labels, then those of the SMPL version.
COLUMNS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "imgname": ((),),
    "center": ((2,),),
    "scale": ((),),
    "pose_cam": ((165,), (72,)),
    "shape": ((11,), (10,)),
    "trans_cam": ((3,),),
    "gtkps": ((127, 3), (45, 3)),
    "cam_int": ((3, 3),),
    "cam_ext": ((4, 4),),
    "sub": ((),),
}
TEXT = ("imgname", "sub")
IMAGE_NAME = re.compile(r"(seq_\d+)/seq_\d+_(\d+)\.png")


Rows = Mapping[str, np.ndarray]
"""The columns of a label file, one row per person; `finite` (N,): whether all numbers of a row are."""


@dataclass(frozen=True)
class LabelFile:
    """A label file in the state in which it was found: one that changes is another."""

    path: Path
    modified: int
    size: int

    @classmethod
    def at(cls, path: Path) -> "LabelFile":
        """The file as it is now: its path, time and size.

        Raises:
            PoseRftError: there is none.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise PoseRftError(f"{path} cannot be read ({error.strerror}); unpack BEDLAM's labels again.") from None
        return cls(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)  # units come sorted by folder, so a worker reads each label file about once
def read_rows(file: LabelFile) -> Rows:
    """The columns that a sample needs.

    Raises:
        PoseRftError: not an npz, a column is missing or has another shape, or columns of different length.
    """
    path = file.path
    rows = read_npz(path, COLUMNS)
    if missing := [name for name in COLUMNS if name not in rows]:
        raise PoseRftError(f"{path} lacks {', '.join(missing)}; expected the columns of all_npz_12_training.")
    if len({column.shape[:1] for column in rows.values()}) != 1:
        raise PoseRftError(f"{path} has columns of different length; download it again.")
    for name, shapes in COLUMNS.items():
        kind, found = rows[name].dtype.kind, rows[name].shape[1:]
        if found not in shapes or kind not in ("U" if name in TEXT else "fiu"):
            raise PoseRftError(
                f"{path}: {name} has rows of shape {found} and type {rows[name].dtype}, expected "
                f"{' or '.join(map(str, shapes))}; download it again."
            )
    finite = [np.isfinite(rows[name].reshape(len(rows[name]), -1)).all(axis=1) for name in COLUMNS if name not in TEXT]
    return rows | {"finite": np.logical_and.reduce(finite)}


def body_pose(rows: Rows) -> np.ndarray:
    """(N, 22, 3) axis-angle, root in the camera frame, in the precision in which samples are stored."""
    return rows["pose_cam"][:, : 3 * BODY_JOINTS].reshape(-1, BODY_JOINTS, 3).astype(np.float32)


def smpl_of(rows: Rows, row: int) -> tuple[Smpl, list[tuple[str, str]]]:
    """The body, and what about it is unknown as (flag, note)."""
    pose = np.asarray(rows["pose_cam"][row], np.float64)
    is_smpl = pose.size == 72  # the SMPL version of the labels, else the 165 of SMPL-X
    body = np.zeros((24, 3))
    body[:BODY_JOINTS] = pose[: 3 * BODY_JOINTS].reshape(BODY_JOINTS, 3)
    notes = []
    if not is_smpl:
        notes = [
            ("betas_unknown", "SMPL-X shape does not carry over to SMPL; 0"),
            ("transl_smplx", "rest pelvis of SMPL-X, which differs from SMPL's by centimetres"),
        ]
    smpl = Smpl(
        global_orient=body[0],
        body_pose=body[1:],
        betas=np.asarray(rows["shape"][row])[:10] if is_smpl else np.zeros(10),
        transl=np.asarray(rows["trans_cam"][row]) + rows["cam_ext"][row][:3, 3],
        valid=np.arange(24) < BODY_JOINTS,
        gender="neutral",  # BEDLAM #55: `gender` is the subject's, the parameters are the neutral model's
        body_model="smpl" if is_smpl else "smplx",
        frame="camera",
        source="bedlam",
    )
    return smpl, notes


def frame_of(name: str) -> int:
    """The frame number in the name of a picture."""
    match = IMAGE_NAME.fullmatch(name)
    assert match is not None  # checked when the labels were read
    return int(match[2])


def keypoints_of(points: np.ndarray) -> Keypoints:
    """All 127 of the SMPL-X labels, or the first 24 of the SMPL ones (SMPL's own joints)."""
    joint_set = SMPLX127 if len(points) >= len(SMPLX127) else SMPL24
    points = np.array(points[: len(joint_set)], np.float32)
    points[:, 2] = np.clip(points[:, 2], 0, 1)
    return Keypoints(points, joint_set.name)
