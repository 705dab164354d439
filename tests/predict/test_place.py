"""A body stands where its points were seen, or in the middle of its box."""

import numpy as np
import pytest

from pose_rft.body.joints import SMPL24
from pose_rft.policy.blazepose import LANDMARKS
from pose_rft.predict.place import Points, place

RNG = np.random.default_rng(0)
JOINTS = {name: RNG.uniform(-0.8, 0.8, 3) for name in (*SMPL24.joints, "nose")}
K = np.array([[800.0, 0, 320], [0, 800, 240], [0, 0, 1]])
BOX = (np.array([400.0, 200.0]), 150.0)


def seen(transl: np.ndarray, confidence: np.ndarray) -> Points:
    where = [JOINTS.get(name, RNG.uniform(-1, 1, 3)) + transl for name in LANDMARKS]
    return Points(LANDMARKS, np.array([(K @ point)[:2] / point[2] for point in where]), confidence)


@pytest.mark.parametrize("transl", [(0.3, -0.2, 4.0), (-2.0, 1.0, 9.0)])
def test_true_landmarks_give_the_true_place_whatever_hidden_ones_say(transl):
    points = seen(np.array(transl), np.full(len(LANDMARKS), 0.9))
    hidden = [LANDMARKS.index("left_wrist"), LANDMARKS.index("right_ankle")]
    points.xy[hidden] += 500
    points.confidence[hidden] = 0.01
    found = place(JOINTS, points, BOX, K)
    assert found.fitted_to == "keypoints" and np.allclose(found.transl, transl, atol=1e-6)


def test_few_sure_points_leave_the_box():
    confidence = np.zeros(len(LANDMARKS))
    confidence[[LANDMARKS.index(name) for name in ("nose", "left_hip", "right_hip")]] = 1.0
    for points in (None, seen(np.array([0, 0, 5.0]), confidence)):
        found = place(JOINTS, points, BOX, K)
        middle = K @ (np.mean(list(JOINTS.values()), 0) + found.transl)
        assert found.fitted_to == "box" and np.abs(middle[:2] / middle[2] - BOX[0]).max() < 40
