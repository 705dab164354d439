import itertools

import numpy as np
import pytest
import roma
import torch

from pose_rft.body.frames import semantic_frame
from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import mirror_rotations
from pose_rft.captions.geometry import pose_bodies
from pose_rft.captions.predicates import all_predicates, predicates
from tests.support.skeleton import REST_JOINTS, pose, random_poses


def facts(**degrees):
    return predicates(pose(**degrees), REST_JOINTS)


ARMS_DOWN = {"left_shoulder": (0, 0, -75), "right_shoulder": (0, 0, 75)}
SEATED = {"left_hip": (-85, 0, 10), "right_hip": (-85, 0, -10), "left_knee": (85, 0, 0), "right_knee": (85, 0, 0)}


def test_the_rest_pose_stands_with_both_arms_to_the_sides():
    rest = facts()
    assert rest.posture == "standing" and rest.lean == "upright"
    assert rest.left_arm_to_the_side is True and rest.right_arm_to_the_side is True
    assert rest.raised_arms == "none" and rest.hands_together is False


def test_raised_arms_are_told_by_side():
    assert facts(left_shoulder=(0, 0, 80), right_shoulder=(0, 0, -80)).raised_arms == "both"
    assert facts(left_shoulder=(0, 0, 80), right_shoulder=(0, 0, 75)).raised_arms == "left"
    assert facts(**ARMS_DOWN).raised_arms == "none"


def test_a_hand_level_with_the_head_is_too_close_to_call():
    level = facts(left_shoulder=(0, 0, 28), right_shoulder=(0, 0, 75))
    assert level.left_hand_above_head is None and level.raised_arms is None


@pytest.mark.parametrize(
    ("posture", "degrees"),
    [
        ("standing", {}),
        ("sitting", SEATED),
        ("lying", {"root": (-88, 0, 0)}),
        ("bending", {"spine1": (30, 0, 0), "spine2": (30, 0, 0), "spine3": (25, 0, 0), "left_hip": (-10, 0, 0)}),
        ("kneeling", {"left_knee": (92, 0, 0), "right_knee": (92, 0, 0)}),
        (
            "lunging",
            {"left_hip": (-70, 0, 0), "left_knee": (75, 0, 0), "right_hip": (30, 0, 0), "right_knee": (15, 0, 0)},
        ),
        (
            "squatting",
            {"left_hip": (-95, 0, 20), "right_hip": (-95, 0, -20), "left_knee": (125, 0, 0), "right_knee": (125, 0, 0)}
            | {"root": (15, 0, 0)},
        ),
        (
            "on all fours",
            {"root": (80, 0, 0), "left_hip": (-75, 0, 0), "right_hip": (-75, 0, 0), "left_knee": (85, 0, 0)}
            | {"right_knee": (85, 0, 0), "left_shoulder": (0, -85, 0), "right_shoulder": (0, 85, 0)},
        ),
        ("upside down", {"root": (180, 0, 0)}),
    ],
)
def test_postures_are_recognised(posture, degrees):
    assert facts(**degrees).posture == posture


def test_lying_says_what_touches_the_ground():
    assert facts(root=(-88, 0, 0)).lying_on == "back"
    assert facts(root=(88, 0, 0), left_shoulder=(0, 0, 80), right_shoulder=(0, 0, -80)).lying_on == "belly"
    assert facts(root=(0, 0, 88), left_shoulder=(0, 0, 80), right_shoulder=(0, 0, 60)).lying_on == "right side"


@pytest.mark.parametrize(
    ("lean", "degrees"),
    [("forward", (30, 0, 0)), ("backward", (-30, 0, 0)), ("left", (0, 0, -30)), ("right", (0, 0, 30))],
)
def test_the_torso_leans_where_it_is_bent(lean, degrees):
    assert facts(spine1=degrees).lean == lean


def test_facts_mirror_with_the_pose():
    swap = {"left": "right", "right": "left", "left side": "right side", "right side": "left side"}
    poses = random_poses(200)
    mirror = mirror_rotations(torch.from_numpy(poses)).numpy()
    for own, other in zip(
        all_predicates(pose_bodies(poses, REST_JOINTS)), all_predicates(pose_bodies(mirror, REST_JOINTS)), strict=True
    ):
        for name, value in vars(own).items():
            mirrored_name = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
            expected = swap.get(value, value) if isinstance(value, str) else value
            got = getattr(other, mirrored_name)
            assert got == pytest.approx(expected) if isinstance(expected, float) else got == expected, name


def test_kinematics_agree_with_a_chain_of_rotations():
    rotations = random_poses(1)[0]
    body = pose_bodies(rotations[None], REST_JOINTS)
    chain = ["pelvis", "spine1", "spine2", "spine3", "left_collar", "left_shoulder", "left_elbow", "left_wrist"]
    index = [SMPL24.index(name) for name in chain]
    frame, place = rotations[0], np.zeros(3)
    for parent, child in itertools.pairwise(index):
        place = place + frame @ (REST_JOINTS[child] - REST_JOINTS[parent])
        frame = frame @ rotations[child]
    assert np.allclose(body.joint("left_wrist")[0], place)


def test_heading_does_not_matter_once_removed():
    poses = torch.from_numpy(random_poses(20))
    turned = poses.clone()
    turned[:, 0] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)) @ poses[:, 0]
    back = semantic_frame(turned, "amass").numpy()
    assert np.allclose(back, poses.numpy(), atol=1e-6)
