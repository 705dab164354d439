"""BEDLAM's label files: one npz per scene, one row per person and image (data_processing/ReadMe.md, df_full_body.py).

Columns are plain arrays. Columns that samples do not need, and the pickled `motion_info`, are not read. The SMPL-X
version has poses of 165 numbers and 127 keypoints, the SMPL version 72 and 45; body joints 0..21 of both are SMPL's.
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

# Shapes of a row: in SMPL-X labels first, then in SMPL labels.
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
"""The columns of a label file, one row per person; `finite` (N,): whether all numbers of a row are finite."""


@dataclass(frozen=True)
class LabelFile:
    """A label file with its modification time and size, so that caches reload a changed file."""

    path: Path
    modified: int
    size: int

    @classmethod
    def at(cls, path: Path) -> "LabelFile":
        """Returns the file with its current modification time and size.

        Raises:
            PoseRftError: the file does not exist or cannot be accessed.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise PoseRftError(f"{path} cannot be read ({error.strerror}); unpack BEDLAM's labels again.") from None
        return cls(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)  # units are sorted by folder, so a worker reads each label file about once
def read_rows(file: LabelFile) -> Rows:
    """Reads the columns that samples need.

    Raises:
        PoseRftError: not an npz, a column is missing or has the wrong shape, or columns differ in length.
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
    """Returns (N, 22, 3) axis-angle, root in the camera frame, in the precision of stored samples."""
    return rows["pose_cam"][:, : 3 * BODY_JOINTS].reshape(-1, BODY_JOINTS, 3).astype(np.float32)


def smpl_of(rows: Rows, row: int) -> tuple[Smpl, list[tuple[str, str]]]:
    """Returns the body and a (flag, note) pair for each thing that is unknown about it."""
    pose = np.asarray(rows["pose_cam"][row], np.float64)
    is_smpl = pose.size == 72  # SMPL labels; SMPL-X labels have 165 numbers
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
        gender="neutral",  # BEDLAM #55: `gender` is the subject's, but the parameters are for the neutral model
        body_model="smpl" if is_smpl else "smplx",
        frame="camera",
        source="bedlam",
    )
    return smpl, notes


def frame_of(name: str) -> int:
    """Returns the frame number in an image name."""
    match = IMAGE_NAME.fullmatch(name)
    assert match is not None  # checked when the labels were read
    return int(match[2])


def keypoints_of(points: np.ndarray) -> Keypoints:
    """Returns all 127 keypoints of SMPL-X labels, or the first 24 of SMPL labels (SMPL's own joints)."""
    joint_set = SMPLX127 if len(points) >= len(SMPLX127) else SMPL24
    points = np.array(points[: len(joint_set)], np.float32)
    points[:, 2] = np.clip(points[:, 2], 0, 1)
    return Keypoints(points, joint_set.name)
