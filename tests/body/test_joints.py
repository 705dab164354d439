import numpy as np
import pytest
from smplx.joint_names import JOINT_NAMES

from pose_rft.body import joints
from pose_rft.body.joints import H36M17, H36M32, LSP14, SMPL24, SMPLX127, joint_set, mirrored_name, to_smpl24
from pose_rft.errors import PoseRftError

ALL = [joint_set(name) for name in joints._SETS]


@pytest.mark.parametrize("one", ALL, ids=lambda s: s.name)
def test_flip_is_an_involution_that_swaps_sides(one):
    assert all(one.flip[one.flip[i]] == i for i in range(len(one)))
    assert all(one.joints[one.flip[i]] == mirrored_name(one.joints[i]) for i in range(len(one)))
    assert sum(i != j for i, j in enumerate(one.flip)) == sum(n.startswith(("left_", "right_")) for n in one.joints)


@pytest.mark.parametrize("one", [s for s in ALL if s.parents], ids=lambda s: s.name)
def test_parents_form_one_tree_that_the_mirror_keeps(one):
    assert one.parents.count(-1) == 1
    for joint in range(len(one)):
        seen = set()
        while joint != -1:
            assert joint not in seen
            seen.add(joint)
            joint = one.parents[joint]
    for joint, parent in enumerate(one.parents):
        if parent >= 0:
            assert one.parents[one.flip[joint]] == one.flip[parent]


def test_sizes_are_those_of_the_releases():
    sizes = {"smpl24": 24, "h36m32": 32, "h36m17": 17, "mpi28": 28, "mpi17": 17, "coco17": 17, "mpii16": 16}
    sizes |= {"openpose18": 18, "smplx127": 127, "lsp14": 14, "spin24": 24}
    assert {s.name: len(s) for s in ALL} == sizes


def test_smplx_names_are_those_of_the_package():
    assert list(SMPLX127.joints) == JOINT_NAMES[:127]
    assert SMPLX127.joints[:22] == SMPL24.joints[:22]


def test_h36m17_are_the_moving_joints_of_the_32():
    moving = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
    assert tuple(H36M32.joints[i] for i in moving) == H36M17.joints


def test_the_table_1_joints_are_all_in_h36m17():
    assert H36M17.indices(LSP14.joints) == [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]


@pytest.mark.parametrize("one", ALL, ids=lambda s: s.name)
def test_mapping_to_smpl_keeps_points_by_name_and_flags_the_rest(one):
    points = np.random.default_rng(0).normal(size=(len(one), 3))
    mapped, valid = to_smpl24(points, one.name)
    assert valid[SMPL24.index("left_knee")] and valid.sum() >= 12
    for i in np.flatnonzero(valid):
        np.testing.assert_array_equal(mapped[i], points[one.index(SMPL24.joints[i])])
    assert not mapped[~valid].any()


def test_a_pelvis_between_the_hips_is_not_taken_for_smpls():
    for name in ("h36m17", "mpii16", "mpi28"):
        assert not to_smpl24(np.ones((len(joint_set(name)), 2)), name)[1][0]


def test_unknown_set_is_named_with_the_known_ones():
    with pytest.raises(PoseRftError, match=r"'coco19' is unknown; known sets are smpl24"):
        joint_set("coco19")


def test_wrong_number_of_points_is_refused():
    with pytest.raises(ValueError, match="16 points for the 17 joints of coco17"):
        to_smpl24(np.zeros((16, 3)), "coco17")
