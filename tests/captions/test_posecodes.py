import numpy as np
import pytest
import torch

from pose_rft.body.rotations import mirror_rotations
from pose_rft.captions.geometry import pose_bodies
from pose_rft.captions.posecodes import CELL_NAMES, mirrored, posecodes
from tests.support.skeleton import REST_JOINTS, pose, random_poses


def codes_of(**degrees):
    found = posecodes(pose_bodies(pose(**degrees)[None], REST_JOINTS))[0]
    return {(code.part, code.kind): code.value for code in found}


def test_the_rest_pose_points_both_straight_arms_out():
    codes = codes_of()
    for side in ("left", "right"):
        assert codes[f"{side}_arm", "upper_arm"] == codes[f"{side}_arm", "forearm"] == "out"
        assert codes[f"{side}_arm", "bend"] == codes[f"{side}_leg", "bend"] == "straight"
        assert codes[f"{side}_leg", "thigh"] == codes[f"{side}_leg", "shin"] == "down"


def test_limbs_are_told_apart_by_side_and_direction():
    codes = codes_of(left_shoulder=(0, 0, 85), right_shoulder=(0, 85, 0), right_elbow=(0, 90, 0), left_hip=(-90, 0, 0))
    assert codes["left_arm", "upper_arm"] == "up"
    assert codes["right_arm", "upper_arm"] == "front"
    assert codes["right_arm", "bend"] == "square" and codes["right_arm", "forearm"] == "in"
    assert codes["left_leg", "thigh"] == "front" and codes["right_leg", "thigh"] == "down"
    assert codes["feet", "higher far"] == "left" and codes["hands", "higher"] == "left"


@pytest.mark.parametrize(
    ("part", "kind", "value", "degrees"),
    [
        ("torso", "lean clear", "forward", {"spine1": (40, 0, 0)}),
        ("torso", "side clear", "left", {"spine1": (0, 0, -28)}),
        ("torso", "twist clear", "left", {"spine2": (0, 30, 0)}),
        ("head", "turn strong", "right", {"neck": (0, -50, 0)}),
        ("head", "nod clear", "down", {"neck": (30, 0, 0)}),
        ("head", "tilt clear", "left", {"neck": (0, 0, -30)}),
    ],
)
def test_trunk_and_head_bend_to_the_named_side(part, kind, value, degrees):
    assert codes_of(**degrees)[part, kind] == value


def test_a_hand_on_the_other_shoulder_is_seen():
    codes = codes_of(left_shoulder=(0, -100, -20), left_elbow=(0, -100, 0))
    assert codes.get(("left_arm", "touch"), codes.get(("left_arm", "near"))) == "right shoulder"


def test_posecodes_of_the_mirrored_pose_are_the_mirrored_posecodes():
    poses = random_poses(300)
    own = posecodes(pose_bodies(poses, REST_JOINTS))
    other = posecodes(pose_bodies(mirror_rotations(torch.from_numpy(poses)).numpy(), REST_JOINTS))
    for codes, reflected in zip(own, other, strict=True):
        expected = sorted(mirrored(code)._replace(rarity=0.0) for code in codes)
        assert expected == sorted(code._replace(rarity=0.0) for code in reflected)
        assert sum(c.rarity for c in codes) == pytest.approx(sum(c.rarity for c in reflected))


def test_a_batch_says_what_each_pose_says_alone():
    poses = random_poses(30, seed=4)
    together = posecodes(pose_bodies(poses, REST_JOINTS))
    alone = [posecodes(pose_bodies(one[None], REST_JOINTS))[0] for one in poses]
    assert together == alone


def test_body_size_changes_no_category():
    poses = random_poses(100, seed=5)
    small, large = (posecodes(pose_bodies(poses, REST_JOINTS * scale)) for scale in (0.8, 1.2))
    for a, b in zip(small, large, strict=True):
        sizeless = {(c.part, c.kind, c.value) for c in a if c.kind != "height"}
        assert len(sizeless ^ {(c.part, c.kind, c.value) for c in b if c.kind != "height"}) <= 2


def test_directions_cover_the_sphere_with_distinct_names():
    assert len(CELL_NAMES) == len(set(CELL_NAMES)) == 26


def test_rarity_grows_with_the_distance_from_what_the_posture_implies():
    def rarity(**degrees):
        codes = posecodes(pose_bodies(pose(**degrees)[None], REST_JOINTS))[0]
        return next(code.rarity for code in codes if (code.part, code.kind) == ("left_arm", "upper_arm"))

    values = [rarity(left_shoulder=(0, 0, angle)) for angle in (-80, -45, 0, 85)]
    assert values == sorted(values) and values[0] < 0.2 and np.isclose(values[-1], 1.0)
