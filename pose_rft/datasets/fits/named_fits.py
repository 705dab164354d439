"""Fits of label files by image name, even if the file itself has no names.

SPIN's final fits (`pose`, `betas`, `valid_fit`) and static fits (`pose`, `shape`, `has_smpl`, or one array of 72 + 10
numbers) have no names: row i belongs to row i of SPIN's training npz of the data set, the index. Two files of equal
length may still describe different people, so most bodies must match the index's 2D joints of their row better than
a neighbouring row's body does. If a fit file has names, it is joined by name.
Source: nkolot/SPIN train/fits_dict.py and README (`Final fits`); docs/formats.md, SMPL fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pose_rft.body.joints import LIMB_JOINTS, SMPL24, SPIN24, to_smpl24
from pose_rft.datasets.common.labels import plausible
from pose_rft.datasets.fits.sources import posed_joints
from pose_rft.datasets.label_files.rows import LabelRows, flags, read_label_rows, texts
from pose_rft.errors import PoseRftError
from pose_rft.io.npz import names_in_npz, read_npy, read_npz

SHAPE = 10
POSE = 72
LOOKED_AT = 64  # rows to check, spread over the file
OWN_IS_BETTER = 0.75  # share of checked rows; 0.95 in SPIN's files, including bad fits; half if files do not match
FEWEST_JOINTS = 6
IS_LIMB = np.isin(SMPL24.joints, LIMB_JOINTS)


@dataclass(frozen=True, eq=False)
class NamedFits:
    """N fits: image names, box centre (N, 2) and side (N,) px, pose (N, 24, 3) axis-angle in the camera frame.

    valid (N,): rows with a body; broken (N,): rows that should have a body but whose numbers are not finite.
    """

    images: Sequence[str]
    center: np.ndarray
    side: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    valid: np.ndarray
    broken: np.ndarray


def read_named_fits(path: Path, body_model: Path, index: Path | None = None) -> NamedFits:
    """Reads the fits in `path`; image names come from `index`, or from the file itself if there is no index.

    Args:
        body_model: `data.body_model`, used to check that fits and index describe the same people.
    Raises:
        PoseRftError: a file is damaged, has no fits or no names, or fits and index do not describe the same people.
    """
    if index is None:
        rows = read_label_rows(path, joints=False) if path.suffix != ".npy" else None
        if rows is None or rows.pose is None or rows.betas is None or rows.has_smpl is None or rows.broken is None:
            raise PoseRftError(
                f"{path} has no SMPL poses with picture names; fits without names need `index`, SPIN's training npz."
            )
        return NamedFits(rows.images, rows.center, rows.side, rows.pose, rows.betas, rows.has_smpl, rows.broken)
    pose, betas, there, names = _rows(path)
    rows = read_label_rows(index)
    sound = plausible(pose).all(axis=(1, 2)) & plausible(betas).all(axis=1)
    if names is not None:
        order = _by_name(names, rows.images)
        if len(names) and not (order >= 0).any():
            raise PoseRftError(f"{path} names none of the pictures of {index}; take the npz that the fits belong to.")
        there, order = there & (order >= 0), np.maximum(order, 0)
        images = [rows.images[row] for row in order] if len(rows) else []
        center, side = rows.center[order], rows.side[order]
        return NamedFits(images, center, side, pose, betas, there & sound, there & ~sound)
    if len(rows) != len(pose):
        raise PoseRftError(
            f"{path} has {len(pose)} fits but {index} names {len(rows)} people; take the npz that the fits belong to."
        )
    _check_same_people(path, index, pose, betas, there & sound, rows, body_model)
    return NamedFits(rows.images, rows.center, rows.side, pose, betas, there & sound, there & ~sound)


def _by_name(names: Sequence[str], listed: Sequence[str]) -> np.ndarray:
    """Returns the row of each name in `listed`, or -1; repeated names are matched in order."""
    rows: dict[str, list[int]] = {}
    for row in reversed(range(len(listed))):
        rows.setdefault(listed[row], []).append(row)
    return np.array([found.pop() if (found := rows.get(name)) else -1 for name in names], int)


def _check_same_people(
    path: Path, index: Path, pose: np.ndarray, betas: np.ndarray, sound: np.ndarray, rows: LabelRows, body_model: Path
) -> None:
    """
    Raises:
        PoseRftError: the bodies do not match the 2D joints of their own rows better than bodies of other rows do.
    """
    if not sound.any():
        return
    points, shared = to_smpl24(np.zeros((len(rows), 24, 3)) if rows.joints2d is None else rows.joints2d, SPIN24)
    seen = (points[:, :, 2] > 0) & shared & IS_LIMB
    chosen = np.flatnonzero(sound & (seen.sum(axis=1) >= FEWEST_JOINTS))
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), LOOKED_AT)).astype(int)]
    if len(chosen) < 2:
        raise PoseRftError(
            f"Nothing in {index} tells whether it names the people of {path}: it has no 2D joints (`part`); take "
            "SPIN's training npz, or fits with picture names."
        )
    joints = posed_joints(pose[chosen], betas[chosen], body_model)
    own, others = (
        np.array([_unlike(body, points[row], seen[row]) for body, row in zip(bodies, chosen, strict=True)])
        for bodies in (joints, np.roll(joints, 1, axis=0))
    )
    if (own < others).mean() < OWN_IS_BETTER:
        raise PoseRftError(
            f"{path} and {index} have one length but are not of the same people: only {(own < others).sum()} of "
            f"{len(chosen)} bodies look like the 2D joints of their row; take the npz that the fits belong to."
        )


def _unlike(joints: np.ndarray, points: np.ndarray, seen: np.ndarray) -> float:
    """Returns the residual of SMPL's joints (24, 3) aligned to points (24, 3) px by shift and scale: 0 same, 1 not."""
    body, target = joints[seen, :2], points[seen, :2]
    body, target = body - body.mean(axis=0), target - target.mean(axis=0)
    size = max(float((body * target).sum() / max((body * body).sum(), 1e-12)), 0.0)
    return float(((size * body - target) ** 2).sum() / max((target * target).sum(), 1e-12))


def _rows(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[str] | None]:
    """Reads pose (N, 24, 3), betas (N, 10), which rows have a fit (N,), and image names if the file has them."""
    try:
        if path.suffix == ".npy":
            both = np.asarray(read_npy(path), np.float64).reshape(-1, POSE + SHAPE)
            return both[:, :POSE].reshape(-1, 24, 3), both[:, POSE:], np.ones(len(both), bool), None
        content = read_npz(path, ("imgname", "pose", "betas", "shape", "valid_fit", "has_smpl"))
        pose = np.asarray(content["pose"], np.float64).reshape(-1, 24, 3)
        betas = np.asarray(content["betas" if "betas" in content else "shape"], np.float64)[:, :SHAPE]
        there = flags(content.get("valid_fit"), len(pose)) & flags(content.get("has_smpl"), len(pose))
        names = texts(content["imgname"]) if "imgname" in content else None
        if names is not None and len(names) != len(pose):
            raise ValueError(f"{len(names)} names for {len(pose)} poses")
        return pose, betas.reshape(len(pose), SHAPE), there, names
    except (KeyError, ValueError, TypeError, IndexError, EOFError, OSError) as error:
        kept = f"; it has {', '.join(sorted(names_in_npz(path)))}" if path.suffix == ".npz" else ""
        raise PoseRftError(
            f"{path} is no file of SPIN's fits ({error!r}{kept}); see docs/data.md for what `fits` takes."
        ) from None
