"""Test sets with a protocol of their own: EMDB's 24 joints, ChatPose's 22, numbers equal to hand calculation."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.body.smpl import load_body_model
from pose_rft.evaluation import protocols
from pose_rft.evaluation.joint_readers import body_joints, emdb_joints, eval_joints, joint_reader
from pose_rft.metrics.pose_error import mpjre
from tests.evaluation.test_protocols import turns
from tests.support.training_fakes import Chain, image_record, samples


@pytest.fixture(scope="module")
def body(tiny_folder):
    return load_body_model(tiny_folder)


def test_a_set_is_read_by_its_own_protocol_or_by_table_1_s():
    assert joint_reader("emdb/test") is emdb_joints and joint_reader("chatpose/rpe_pose") is body_joints
    assert joint_reader("3dpw/test") is joint_reader("h36m/p2") is eval_joints


def test_emdb_s_joints_are_smpl_s_from_midway_between_the_hips():
    rest = torch.eye(3).expand(1, 24, 3, 3)
    chain = SimpleNamespace(joints=lambda rotations, betas: Chain().joints(rotations))
    joints = emdb_joints(chain, rest, None)[0]
    left, right = (SMPL24.index(f"{side}_hip") for side in ("left", "right"))
    assert joints.shape == (24, 3)
    torch.testing.assert_close(joints[left], torch.tensor([0.1, 0.0, 0.0]))
    torch.testing.assert_close(joints[right], torch.tensor([-0.1, 0.0, 0.0]))
    torch.testing.assert_close(joints[0], torch.tensor([0.0, -0.1, 0.0]), msg="hips lie 10 cm from the pelvis along y")


def test_chatpose_s_joints_are_the_22_of_the_body_from_the_pelvis(body):
    poses = turns(0, 3)
    joints, whole = body_joints(body, poses, None), body.joints(poses)
    assert joints.shape == (3, 22, 3)
    torch.testing.assert_close(joints, whole[:, :22] - whole[:, :1])


def test_emdb_s_errors_are_those_of_a_calculation_by_hand(body, tmp_path):
    """One elbow bent by 90 degrees too much moves the wrist and the hand alone: by √2 times their distance to it."""
    read = samples("emdb/test", [image_record(i, dataset="emdb") for i in range(2)], tmp_path)
    truth = protocols.true_joints(read, [0, 1], lambda gender: body, emdb_joints)
    expected = np.array(body.joints(read.rotations, read.betas))
    expected = expected - (expected[:, 1:2] + expected[:, 2:3]) / 2
    np.testing.assert_allclose(truth.joints, expected, atol=1e-6)
    wrong = read.rotations.clone()
    elbow, wrist, hand = (SMPL24.index(f"left_{name}") for name in ("elbow", "wrist", "hand"))
    forearm = body.rest_joints(read.betas)[0, wrist] - body.rest_joints(read.betas)[0, elbow]
    aside = torch.linalg.cross(forearm, torch.tensor([0.0, 0.0, 1.0]))
    quarter = axis_angle_to_matrix((aside / aside.norm() * math.pi / 2)[None])[0]
    wrong[:, elbow] = wrong[:, elbow] @ quarter
    reached = emdb_joints(body, wrong, read.betas)
    moved = (reached - truth.joints).norm(dim=-1) * 1000
    still = [i for i in range(24) if i not in (wrist, hand)]
    assert moved[:, still].max() < 1e-2
    torch.testing.assert_close(moved[:, wrist], torch.full((2,), float(forearm.norm()) * math.sqrt(2) * 1000))
    errors = protocols.joint_errors(reached, truth.joints)
    torch.testing.assert_close(errors["mpjpe"], moved.sum(1) / 24)
    assert protocols.mean_training_joints([read], body, 9, emdb_joints).shape == (24, 3)


def test_the_mean_joint_rotation_error_is_the_mean_angle_in_degrees():
    right = torch.eye(3).expand(1, 21, 3, 3)
    wrong = right.clone()
    wrong[0, 4] = axis_angle_to_matrix(torch.tensor([[0.0, math.pi / 2, 0.0]]))[0]
    wrong[0, 9] = axis_angle_to_matrix(torch.tensor([[math.radians(15.0), 0.0, 0.0]]))[0]
    assert float(mpjre(wrong, right)) == pytest.approx((90 + 15) / 21, abs=1e-4)
    assert float(mpjre(right, right)) == pytest.approx(0, abs=0.05)
