"""A pose from a file: what `pose-rft predict` wrote, or plain numpy arrays."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.core.errors import PoseRftError

EXPECTED = (
    "expected the JSON of `pose-rft predict`, or .npy/.npz with axis-angles (72,), (24, 3) or matrices (24, 3, 3)"
)


def read_pose(path: Path) -> Tensor:
    """(24, 3, 3) rotations relative to the parent joint; of an .npz the array `pose`, `poses`, or its only one.

    Raises:
        PoseRftError: no such file, another kind of file, or not one pose of 24 joints.
    """
    try:
        if path.suffix == ".json":
            values = np.asarray(json.loads(path.read_text())["rotation_matrices"], dtype=np.float64)
        else:
            values = np.load(path, allow_pickle=False)
            if not isinstance(values, np.ndarray):
                name = next((n for n in ("pose", "poses") if n in values.files), values.files[0])
                values = values[name]
    except OSError as error:
        raise PoseRftError(f"{path} cannot be read ({error.strerror or error}); {EXPECTED}.") from None
    except (ValueError, KeyError, IndexError, TypeError, EOFError) as error:
        raise PoseRftError(f"{path} holds no pose ({error}); {EXPECTED}.") from None
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        raise PoseRftError(f"{path} holds values that are no finite numbers; {EXPECTED}.")
    if values.size == 24 * 9:
        rotations = torch.from_numpy(values.reshape(24, 3, 3).astype(np.float32))
        if not torch.allclose(rotations @ rotations.mT, torch.eye(3).expand(24, 3, 3), atol=1e-3):
            raise PoseRftError(f"{path} holds matrices that are no rotations; {EXPECTED}.")
        return rotations
    if values.size == 24 * 3:
        return axis_angle_to_matrix(torch.from_numpy(values.reshape(24, 3).astype(np.float32)))
    raise PoseRftError(f"{path} holds an array of shape {values.shape}; {EXPECTED}.")
