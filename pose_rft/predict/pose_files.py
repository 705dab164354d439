"""Reads a pose from a file: output of `pose-rft predict`, plain numpy arrays, or a frame of AMASS.

SMPL+H and SMPL-X files have SMPL's 22 body joints and their own finger joints. They lack SMPL's two hand joints, which
stay in the rest pose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.json_files import read_json
from pose_rft.io.npz import names_in_npz, read_npy, read_npz
from pose_rft.predict.store import heads, read_lines

LARGEST = 1 << 28  # bytes; the longest sequence of AMASS has a tenth of that
JOINTS, BODY_JOINTS = 24, 22
AMASS = {156: "SMPL+H", 165: "SMPL-X"}  # length of a frame's `poses` → body model
ONE_POSE = {(j * 3,) for j in (JOINTS, BODY_JOINTS)} | {
    (j, *numbers) for j in (JOINTS, BODY_JOINTS) for numbers in ((3,), (3, 3))
}
LARGEST_ANGLE = 1e4  # radians; single precision cannot resolve larger angles
EXPECTED = (
    "expected the JSON lines of `pose-rft predict`, .npy or .npz with axis-angles (72,), (24, 3), (66,), (22, 3) or "
    "matrices (24, 3, 3), (22, 3, 3), one or many, or an .npz of AMASS"
)


@dataclass(frozen=True, eq=False)
class PoseFile:
    """rotations (24, 3, 3) relative to the parent joint; frame: coordinate frame that the file format defines, if any;
    note: what the file does not say about the pose."""

    rotations: Tensor
    frame: Literal["amass"] | None = None
    note: str | None = None


class TooFew(PoseRftError):
    """The file has no pose of the requested number."""

    def __init__(self, path: Path, count: int, number: int) -> None:
        super().__init__(f"{path} has {count} poses, and number {number} was asked for; they count from 0.")


def read_pose(path: Path, number: int = 0) -> PoseFile:
    """Reads pose `number` (from 0) of a file; of an .npz, the array `pose` or `poses`, else the first by name.

    Raises:
        PoseRftError: no such file or pose, an unknown file format, or poses of other than 24 or 22 joints.
    """
    if path.suffix == ".jsonl":  # a video has tens of thousands of lines, of which one is wanted
        return PoseFile(_rotations(_reading(path, lambda: _line(path, number)), path))
    values = _reading(path, lambda: _values(path))
    of_amass = values.ndim == 2 and values.shape[1] in AMASS
    if of_amass or values.shape[1:] in ONE_POSE:
        if number >= len(values):
            raise TooFew(path, len(values), number)
        many, values = len(values), values[number]
    elif number:
        raise PoseRftError(f"{path} holds one pose, and number {number} was asked for; leave --number away.")
    if of_amass:
        note = f"frame {number} of {many} of AMASS ({AMASS[values.size]}); SMPL's hands as they rest"
        return PoseFile(_rotations(values[: 3 * BODY_JOINTS], path), "amass", note)
    of_body = values.size in (BODY_JOINTS * 9, BODY_JOINTS * 3)
    return PoseFile(_rotations(values, path), None, f"{BODY_JOINTS} joints; hands as they rest" if of_body else None)


def _line(path: Path, number: int) -> Any:
    head = next(islice(heads(path), number, None), None)
    if head is None:
        raise TooFew(path, sum(1 for _ in heads(path)), number)
    return next(read_lines(path, [head]))["rotation_matrices"]


def _values(path: Path) -> Any:
    if path.suffix == ".json":
        return read_json(path, dict)["rotation_matrices"]
    if path.suffix == ".npz":
        names = sorted(names_in_npz(path))
        name = next((name for name in ("pose", "poses") if name in names), names[0])
        return read_npz(path, [name], LARGEST)[name]
    return read_npy(path, LARGEST)


def _reading(path: Path, read: Callable[[], Any]) -> np.ndarray:
    """Reads the numbers of a file without interpreting them."""
    try:
        values = np.asarray(read())
        if values.dtype.kind not in "fiu":
            raise TypeError(f"its values are {values.dtype}")
    except door.Unreadable as error:
        raise PoseRftError(f"{str(error).rstrip('.')}; {EXPECTED}.") from None
    except TooFew:
        raise
    except PoseRftError as error:  # not a valid JSON or numpy file
        raise PoseRftError(f"{path} holds no pose ({str(error).rstrip('.')}); {EXPECTED}.") from None
    except (ValueError, KeyError, IndexError, TypeError, EOFError, RecursionError, OverflowError) as error:
        raise PoseRftError(f"{path} holds no pose ({error!s:.200}); {EXPECTED}.") from None
    return values.astype(np.float64)


def _rotations(values: np.ndarray, path: Path) -> Tensor:
    """Converts axis-angles or matrices of 24 or 22 joints to (24, 3, 3)."""
    if not (np.abs(values) <= LARGEST_ANGLE).all():  # NaN, infinite, or too large for an angle
        raise PoseRftError(f"{path} holds values that are no finite numbers of radians; {EXPECTED}.")
    found = torch.eye(3).repeat(JOINTS, 1, 1)
    for joints in (JOINTS, BODY_JOINTS):
        if values.size == joints * 9:
            matrices = torch.from_numpy(values.reshape(joints, 3, 3).astype(np.float32))
            if not torch.allclose(matrices @ matrices.mT, torch.eye(3).expand(joints, 3, 3), atol=1e-3):
                raise PoseRftError(f"{path} holds matrices that are no rotations; {EXPECTED}.")
            found[:joints] = matrices
            return found
        if values.size == joints * 3:
            found[:joints] = axis_angle_to_matrix(torch.from_numpy(values.reshape(joints, 3).astype(np.float32)))
            return found
    raise PoseRftError(f"{path} holds an array of shape {values.shape}; {EXPECTED}.")
