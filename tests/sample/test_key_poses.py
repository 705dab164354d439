import numpy as np
import pytest

from pose_rft.body.joints import SMPL24
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.sample.key_poses import (
    KEY_POSES,
    KNEE_SIDEWAYS,
    LIMITS,
    PoseSampler,
    _of,
    key_rotations,
    sample_pose,
)


def many(count: int, sampler: PoseSampler | None = None) -> np.ndarray:
    sampler = sampler or PoseSampler()
    return np.stack([sampler.sample(np.random.default_rng([3, i])) for i in range(count)])


@pytest.fixture(scope="module")
def body(standin_folder):
    return NumpyBody(standin_folder)


def angles(rotations: np.ndarray) -> np.ndarray:
    return np.rad2deg(np.arccos(np.clip((np.trace(rotations, axis1=-2, axis2=-1) - 1) / 2, -1, 1)))


def test_there_are_at_least_36_key_poses_and_all_differ():
    poses = np.stack([key_rotations(key) for key in KEY_POSES.values()])
    assert len(poses) >= 36
    apart = np.abs(poses[:, None] - poses[None]).max(axis=(2, 3, 4)) + np.eye(len(poses))
    assert apart.min() > 0.1


def test_samples_are_rotations():
    R = many(100)
    np.testing.assert_allclose(R @ R.swapaxes(-1, -2), np.broadcast_to(np.eye(3), R.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(R), 1)


def test_the_same_generator_gives_the_same_pose_and_another_gives_another():
    first, again, other = (sample_pose(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_a_pose_does_not_depend_on_the_ones_before():
    rng = np.random.default_rng([3, 7])
    many(5)
    np.testing.assert_array_equal(PoseSampler().sample(rng), many(8)[7])


def test_joints_stay_inside_their_limits():
    R = many(500)
    turned = angles(R)
    for joint, name in enumerate(SMPL24.joints[1:], 1):
        assert turned[:, joint].max() <= LIMITS[_of(name)] + 1e-3, name


def test_knees_bend_backwards_only():
    from scipy.spatial.transform import Rotation

    knees = many(500)[:, SMPL24.indices(["left_knee", "right_knee"])].reshape(-1, 3, 3)
    vectors = np.rad2deg(Rotation.from_matrix(knees).as_rotvec())
    assert vectors[:, 0].min() >= -1e-6
    assert np.abs(vectors[:, 1:]).max() <= KNEE_SIDEWAYS + 1e-6


@pytest.mark.parametrize(
    ("name", "above", "below"),
    [
        ("hands up", "left_wrist", "head"),
        ("stand", "left_hip", "left_wrist"),
        ("squat", "left_knee", "left_ankle"),
        ("hands behind head", "left_elbow", "left_shoulder"),
    ],
)
def test_key_poses_do_what_their_names_say(body, name, above, below):
    joints = body.joints(key_rotations(KEY_POSES[name]))
    assert joints[SMPL24.index(above), 1] > joints[SMPL24.index(below), 1]


def test_lying_people_lie_and_standing_people_stand(body):
    for name, key in KEY_POSES.items():
        joints = body.joints(key_rotations(key))
        upright = (joints[SMPL24.index("neck")] - joints[0])[1] / np.linalg.norm(
            joints[SMPL24.index("neck")] - joints[0]
        )
        assert (upright < 0.35) == (name.startswith("lie") or name in ("all fours", "push-up", "touch toes")), name


def test_feet_of_standing_people_are_flat(body):
    joints = body.joints(key_rotations(KEY_POSES["half squat"]))
    toe, ankle = joints[SMPL24.index("left_foot")], joints[SMPL24.index("left_ankle")]
    rest = body.rest_joints()
    drop = rest[SMPL24.index("left_ankle"), 1] - rest[SMPL24.index("left_foot"), 1]
    assert abs((ankle - toe)[1] - drop) < 0.03


def test_heading_and_noise_are_choices():
    steady = PoseSampler(heading=0, tilt=0, noise=0, swap_arms=0, blend=0)
    keys = [key_rotations(key) for key in KEY_POSES.values()]
    flip = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])
    keys += [key[list(SMPL24.flip)] * flip for key in keys]
    close = np.abs(np.stack(keys) - steady.sample(np.random.default_rng(0))).max(axis=(2, 3)) < 0.3
    assert close.all(axis=1).any()


def test_poses_vary_as_much_as_the_sample_needs(body):
    joints = np.stack([body.joints(R) for R in many(300)])
    joints -= joints[:, :1]
    mpjpe = 1000 * np.linalg.norm(joints - joints.mean(0), axis=-1).mean()
    assert 190 < mpjpe < 290
