import numpy as np
import pytest

from pose_rft.body.camera_fit import fit_box, fit_translation, refine_translation

RNG = np.random.default_rng(3)


def intrinsics(width, height):
    """K (3, 3) with a focal length of one image diagonal."""
    focal = float(np.hypot(width, height))
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def project(points, K):
    return points[:, :2] / points[:, 2:] * K[0, 0] + K[:2, 2]


def test_the_true_translation_is_found_whatever_it_is():
    K = intrinsics(640, 480)
    joints = RNG.normal(size=(24, 3)) * 0.4
    for _ in range(5):
        truth = np.array([*RNG.uniform(-1, 1, 2), RNG.uniform(3, 8)])
        found = fit_translation(joints, project(joints + truth, K), RNG.uniform(0.1, 1, 24), K)
        assert np.allclose(found, truth, atol=1e-6)


def test_a_joint_without_weight_has_no_say():
    K = intrinsics(100, 100)
    joints, truth = RNG.normal(size=(24, 3)) * 0.4, np.array([0.1, 0.2, 4.0])
    keypoints, weights = project(joints + truth, K), np.ones(24)
    keypoints[5], weights[5] = 1e4, 0.0
    assert np.allclose(fit_translation(joints, keypoints, weights, K), truth, atol=1e-6)


def test_one_keypoint_is_refused():
    with pytest.raises(ValueError, match="two keypoints"):
        fit_translation(np.zeros((2, 3)), np.zeros((2, 2)), np.array([1.0, 0.0]), intrinsics(8, 8))


def test_a_body_fitted_to_a_box_lies_inside_it():
    K = intrinsics(640, 480)
    joints = RNG.normal(size=(24, 3)) * 0.4
    seen = project(joints + fit_box(joints, np.array([200.0, 300.0]), 150.0, K), K)
    assert (np.abs(seen - [200, 300]) < 100).all()


def test_a_few_joints_in_wrong_places_do_not_move_the_refined_body():
    K = intrinsics(640, 480)
    joints, truth = RNG.uniform(-0.8, 0.8, (24, 3)), np.array([0.4, -0.2, 5.0])
    keypoints, weights = project(joints + truth, K), np.ones(24)
    keypoints[:5] += RNG.uniform(40, 90, (5, 2))
    plain = fit_translation(joints, keypoints, weights, K)
    refined = refine_translation(joints, keypoints, weights, K, plain)
    assert np.abs(refined - truth).max() < 0.02 < np.abs(plain - truth).max()


def test_what_cannot_be_refined_stays_where_it_was():
    K, start = intrinsics(64, 48), np.array([0.0, 0.0, 0.5])
    joints = np.array([[0, 0, -1.0], [0, 1, 0], [1, 0, 0]])
    for keypoints in (np.zeros((3, 2)), np.eye(3)[:, :2]):
        assert (refine_translation(joints, keypoints, np.ones(3), K, start) == start).all()
