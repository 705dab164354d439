import math

import numpy as np
import roma
import torch

from pose_rft.body.frames import amass_to_camera, camera_to_amass, remove_heading, semantic_frame, world_to_camera_smpl
from pose_rft.body.rotations import axis_angle_to_matrix, geodesic_angle, mirror_rotations


def rotations(n: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return roma.random_rotmat(n, dtype=torch.float64)


def turn(axis: int, degrees: float) -> torch.Tensor:
    vector = torch.zeros(3, dtype=torch.float64)
    vector[axis] = math.radians(degrees)
    return axis_angle_to_matrix(vector)


def test_upright_in_amass_is_upright_and_facing_in_camera():
    upright = turn(0, 90)  # SMPL's y up → AMASS z up
    torch.testing.assert_close(upright @ torch.tensor([0.0, 1, 0]).double(), torch.tensor([0.0, 0, 1]).double())
    camera = amass_to_camera(upright)
    torch.testing.assert_close(camera @ torch.tensor([0.0, 1, 0]).double(), torch.tensor([0.0, -1, 0]).double())
    torch.testing.assert_close(camera @ torch.tensor([0.0, 0, 1]).double(), torch.tensor([0.0, 0, -1]).double())


def test_camera_and_amass_are_inverse():
    R = rotations(50)
    torch.testing.assert_close(camera_to_amass(amass_to_camera(R)), R)
    torch.testing.assert_close(amass_to_camera(R), turn(0, 90) @ R)


def test_heading_removal_is_idempotent_and_zeroes_the_z_euler_angle():
    R = remove_heading(rotations(200))
    torch.testing.assert_close(remove_heading(R), R)
    assert torch.atan2(R[:, 1, 0], R[:, 0, 0]).abs().max() < 1e-9


def test_heading_removal_forgets_turns_about_the_vertical_only():
    R = rotations(50)
    torch.testing.assert_close(remove_heading(turn(2, 77) @ R), remove_heading(R))
    torch.testing.assert_close(remove_heading(R)[:, 2], R[:, 2])  # the vertical components stay
    assert geodesic_angle(remove_heading(turn(0, 40) @ R), remove_heading(R)).mean() > 0.1


def test_heading_removal_has_finite_gradients_where_heading_is_undefined():
    root = turn(1, 90).clone().requires_grad_()
    remove_heading(root).sum().backward()
    assert root.grad.isfinite().all()


def test_semantic_frame_does_not_see_the_heading_in_the_camera():
    pose = rotations(48).reshape(2, 24, 3, 3)
    turned = pose.clone()
    turned[:, 0] = turn(1, 130) @ turned[:, 0]  # the camera's y is vertical
    torch.testing.assert_close(semantic_frame(turned, "camera"), semantic_frame(pose, "camera"))
    amass = pose.clone()
    amass[:, 0] = camera_to_amass(pose[:, 0])
    torch.testing.assert_close(semantic_frame(amass, "amass"), semantic_frame(pose, "camera"))
    torch.testing.assert_close(semantic_frame(semantic_frame(pose, "camera"), "amass"), semantic_frame(pose, "camera"))
    torch.testing.assert_close(semantic_frame(pose, "camera")[:, 1:], pose[:, 1:])


def test_mirror_commutes_with_the_semantic_frame():
    pose = rotations(24)
    torch.testing.assert_close(
        semantic_frame(mirror_rotations(pose), "camera"), mirror_rotations(semantic_frame(pose, "camera"))
    )


def test_world_to_camera_moves_every_point_of_the_body_rigidly():
    torch.manual_seed(3)
    root, R = rotations(2, seed=3)
    transl, t, pelvis, point = torch.randn(4, 3, dtype=torch.float64)

    def posed(root, transl):  # SMPL: a rest point turns about the pelvis, then moves
        return root @ (point - pelvis) + pelvis + transl

    expected = R @ posed(root, transl) + t
    torch.testing.assert_close(posed(*world_to_camera_smpl(root, transl, R, t, pelvis)), expected)
    by_numpy = world_to_camera_smpl(*(x.numpy() for x in (root, transl, R, t, pelvis)))
    torch.testing.assert_close(posed(*map(torch.from_numpy, by_numpy)), expected)


def test_numpy_arrays_and_tensors_give_the_same_numbers():
    """Converters use the one and training the other. (torch's own square roots may differ in the last bit.)"""
    R = torch.cat([rotations(200), turn(1, 90)[None]])
    for move in (amass_to_camera, camera_to_amass, remove_heading):
        np.testing.assert_allclose(move(R.numpy()), move(R).numpy(), rtol=0, atol=1e-15)
        assert move(R.float().numpy()).dtype == np.float32
        np.testing.assert_allclose(move(R.float().numpy()), move(R.float()).numpy(), rtol=0, atol=5e-7)
    pose = rotations(48).reshape(2, 24, 3, 3)
    own, tensors = semantic_frame(pose.numpy(), "camera"), semantic_frame(pose, "camera").numpy()
    np.testing.assert_allclose(own, tensors, rtol=0, atol=1e-15)
