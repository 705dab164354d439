import math

import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import (
    axis_angle_to_matrix,
    geodesic_angle,
    matrix_to_axis_angle,
    matrix_to_sixd,
    mirror_rotations,
    sixd_to_matrix,
)


def rotations(*shape: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return roma.random_rotmat(math.prod(shape), dtype=torch.float64).reshape(*shape, 3, 3)


def test_sixd_holds_column_0_then_column_1():
    R = rotations(5)
    sixd = matrix_to_sixd(R)
    torch.testing.assert_close(sixd[:, :3], R[:, :, 0])
    torch.testing.assert_close(sixd[:, 3:], R[:, :, 1])


def test_the_row_layout_of_other_projects_does_not_round_trip():
    R = rotations(20)
    rows = R[:, :2, :].flatten(-2)
    assert geodesic_angle(sixd_to_matrix(rows), R).min() > 0.01


def test_sixd_round_trip_broadcasts_over_leading_dimensions():
    R = rotations(2, 3, 24)
    torch.testing.assert_close(sixd_to_matrix(matrix_to_sixd(R)), R)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_any_six_numbers_give_finite_values_and_gradients(values):
    sixd = torch.tensor(values, requires_grad=True)
    matrix = sixd_to_matrix(sixd)
    matrix.sum().backward()
    assert matrix.isfinite().all() and sixd.grad.isfinite().all()


def test_gram_schmidt_ignores_scale_and_shear_of_the_second_column():
    R = rotations(10)
    first, second = matrix_to_sixd(R).split(3, dim=-1)
    torch.testing.assert_close(sixd_to_matrix(torch.cat((3 * first, 0.2 * second + 0.7 * first), -1)), R)


def test_axis_angle_round_trip_by_angle():
    R = rotations(100)
    assert geodesic_angle(axis_angle_to_matrix(matrix_to_axis_angle(R)), R).max() < 1e-6
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert geodesic_angle(axis_angle_to_matrix(matrix_to_axis_angle(half_turn)), half_turn) < 1e-3


def test_geodesic_angle_is_the_angle_turned():
    for angle in (0.0, 0.3, 2.0, 3.1):
        turn = axis_angle_to_matrix(torch.tensor([0.0, angle, 0.0], dtype=torch.float64))
        torch.testing.assert_close(geodesic_angle(turn, torch.eye(3).double()).item(), angle)


def test_mirror_twice_is_the_identity_and_keeps_rotations():
    R = rotations(4, 24)
    mirrored = mirror_rotations(R)
    torch.testing.assert_close(mirror_rotations(mirrored), R)
    torch.testing.assert_close(torch.linalg.det(mirrored), torch.ones(4, 24, dtype=torch.float64))
    assert geodesic_angle(mirrored, R).max() > 0.5


def test_mirror_reflects_each_joint_of_the_chain():
    """Forward kinematics of a symmetric skeleton commutes with the mirror."""
    torch.manual_seed(1)
    offsets = torch.randn(24, 3, dtype=torch.float64)
    reflect = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    offsets = (offsets + offsets[list(SMPL24.flip)] * reflect) / 2

    def chain(R):
        turned, joints = [R[0]], [offsets[0]]
        for i, parent in enumerate(SMPL24.parents[1:], 1):
            joints.append(joints[parent] + turned[parent] @ offsets[i])
            turned.append(turned[parent] @ R[i])
        return torch.stack(joints)

    R = rotations(24, seed=2)
    torch.testing.assert_close(chain(mirror_rotations(R)), chain(R)[list(SMPL24.flip)] * reflect)
