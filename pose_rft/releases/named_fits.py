"""Fits of label files by the name of their picture, also where the file has only rows.

SPIN's final fits (`pose`, `betas`, `valid_fit`) and static fits (`pose`, `shape`, `has_smpl`, or one array of 72 + 10
numbers) have no names: row i belongs to row i of SPIN's training npz of the data set. That npz is the index, and must
have the same length, so that fits of another file are refused instead of given to the wrong people.
Source: nkolot/SPIN train/fits_dict.py and README (`Final fits`); dataset notes section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pose_rft.core.errors import PoseRftError
from pose_rft.io.npz import names_in_npz, read_npy, read_npz
from pose_rft.releases.label_rows import LabelRows, flags, plausible, read_label_rows

SHAPE = 10
POSE = 72


@dataclass(frozen=True, eq=False)
class NamedFits:
    """N fits: picture names, box centre (N, 2) and side (N,) px, pose (N, 24, 3) axis-angle in the camera frame."""

    images: Sequence[str]
    center: np.ndarray
    side: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    valid: np.ndarray


def read_named_fits(path: Path, index: Path | None = None) -> NamedFits:
    """The fits of `path`, whose pictures `index` names (or the file itself).

    Raises:
        PoseRftError: a file is damaged, has no fits or no names, or the two have different lengths.
    """
    if index is None:
        rows = read_label_rows(path, joints=False) if path.suffix != ".npy" else None
        if rows is None or rows.pose is None or rows.betas is None or rows.has_smpl is None:
            raise PoseRftError(
                f"{path} has no SMPL poses with picture names; fits without names need `index`, SPIN's training npz."
            )
        return _named(rows, rows.pose, rows.betas, rows.has_smpl)
    pose, betas, valid = _rows(path)
    rows = read_label_rows(index, joints=False)
    if len(rows) != len(pose):
        raise PoseRftError(
            f"{path} has {len(pose)} fits but {index} names {len(rows)} people; take the npz that the fits belong to."
        )
    return _named(rows, pose, betas, valid)


def _named(rows: LabelRows, pose: np.ndarray, betas: np.ndarray, valid: np.ndarray) -> NamedFits:
    sound = plausible(pose).all(axis=(1, 2)) & plausible(betas).all(axis=1)
    return NamedFits(rows.images, rows.center, rows.side, pose, betas, valid & sound)


def _rows(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pose (N, 24, 3), betas (N, 10) and valid (N,) of a file of fits without names."""
    try:
        if path.suffix == ".npy":
            both = np.asarray(read_npy(path), np.float64).reshape(-1, POSE + SHAPE)
            return both[:, :POSE].reshape(-1, 24, 3), both[:, POSE:], np.ones(len(both), bool)
        content = read_npz(path, ("pose", "betas", "shape", "valid_fit", "has_smpl"))
        pose = np.asarray(content["pose"], np.float64).reshape(-1, 24, 3)
        betas = np.asarray(content["betas" if "betas" in content else "shape"], np.float64)[:, :SHAPE]
        named = next((name for name in ("valid_fit", "has_smpl") if name in content), None)
        return pose, betas.reshape(len(pose), SHAPE), flags(content[named] if named else None, len(pose))
    except (KeyError, ValueError, TypeError, IndexError, EOFError, OSError) as error:
        kept = f"; it has {', '.join(sorted(names_in_npz(path)))}" if path.suffix == ".npz" else ""
        raise PoseRftError(f"{path} is no file of SPIN's fits ({error!r}{kept}); download it again.") from None
