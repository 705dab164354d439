"""Rotations: 6D, matrices, axis-angle, angles between them, and the left-right mirror.

The 6D form is the first two columns of the matrix, flattened so that values 0:3 are column 0 and 3:6 column 1
(as in ChatPose and 4D-Humans; pytorch3d and UniPose use rows, a different layout). Axis-angle conversions use `roma`.
"""

import roma
import torch
from torch import Tensor

from pose_rft.body.joints import SMPL24

# Below this length a predicted column has no direction; the result stays finite but is not a rotation.
SHORTEST_COLUMN = 1e-8


def matrix_to_sixd(matrix: Tensor) -> Tensor:
    """(..., 3, 3) → (..., 6)."""
    return matrix[..., :2].transpose(-1, -2).flatten(-2)


def sixd_to_matrix(sixd: Tensor) -> Tensor:
    """(..., 6), any two non-parallel columns → (..., 3, 3) rotation by Gram-Schmidt."""
    first = torch.nn.functional.normalize(sixd[..., 0:3], dim=-1, eps=SHORTEST_COLUMN)
    second = sixd[..., 3:6] - (first * sixd[..., 3:6]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1, eps=SHORTEST_COLUMN)
    return torch.stack((first, second, torch.cross(first, second, dim=-1)), dim=-1)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians → (..., 3, 3)."""
    return roma.rotvec_to_rotmat(axis_angle)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """(..., 3, 3) → (..., 3) radians of length ≤ π. At π the sign is ambiguous: compare with `geodesic_angle`."""
    return roma.rotmat_to_rotvec(matrix)


def geodesic_angle(a: Tensor, b: Tensor) -> Tensor:
    """Two (..., 3, 3) → (...) angle of the rotation between them, radians in [0, π]."""
    return roma.rotmat_geodesic_distance(*torch.broadcast_tensors(a, b))


def mirror_rotations(rotations: Tensor) -> Tensor:
    """Returns the left-right mirrored pose: joints swap sides and each rotation is reflected in x.

    Args:
        rotations: (..., 24, 3, 3) local rotations, joint 0 = root in a frame whose x axis is lateral: camera frame
            (the picture flipped) or AMASS frame with heading removed.
    """
    # M R M with M = diag(-1, 1, 1): the off-diagonal entries of row and column 0 change sign.
    sign = rotations.new_tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    return rotations[..., list(SMPL24.flip), :, :] * sign
