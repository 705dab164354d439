"""People of a video keep their number; smoothing takes the tremble and keeps the turn."""

import numpy as np
import pytest
import torch

from pose_rft.body.rotations import axis_angle_to_matrix, geodesic_angle
from pose_rft.predict.tracking import Smoother, Tracker


def box(x, size=100.0):
    return np.array([x, 0, x + size, 2 * size])


def test_people_who_cross_the_picture_keep_their_numbers_in_any_order():
    tracker = Tracker()
    for frame in range(30):
        boxes = [box(10 * frame), box(600 - 5 * frame)]
        found = tracker.numbers(frame / 25, boxes if frame % 2 else boxes[::-1])
        assert found == ([0, 1] if frame % 2 else [1, 0]) or frame == 0
        if frame == 0:
            tracker.last = {0: (0.0, boxes[0]), 1: (0.0, boxes[1])}


@pytest.mark.parametrize("gap, same", [(0.5, True), (2.0, False)])
def test_whoever_is_away_too_long_is_somebody_new(gap, same):
    tracker = Tracker()
    assert tracker.numbers(0.0, [box(0)]) == [0]
    assert tracker.numbers(gap, [box(20)]) == [0 if same else 1]


def test_two_boxes_never_get_one_number():
    tracker = Tracker()
    tracker.numbers(0.0, [box(0)])
    assert sorted(tracker.numbers(0.1, [box(0), box(3)])) == [0, 1]


def test_smoothing_keeps_rotations_and_takes_the_tremble():
    torch.manual_seed(0)
    smoother, still = Smoother(0.2), axis_angle_to_matrix(torch.randn(24, 3))
    raw, smooth = [], []
    for frame in range(100):
        trembling = still @ axis_angle_to_matrix(0.2 * torch.randn(24, 3))
        found, _ = smoother.smooth(0, frame / 25, trembling, torch.zeros(3))
        assert torch.allclose(found @ found.mT, torch.eye(3).expand(24, 3, 3), atol=1e-5)
        raw.append(geodesic_angle(trembling, still).mean())
        smooth.append(geodesic_angle(found, still).mean())
    assert torch.stack(smooth[50:]).mean() < 0.5 * torch.stack(raw[50:]).mean()


def test_a_steady_pose_is_left_alone_and_people_are_smoothed_apart():
    smoother, pose = Smoother(0.2), axis_angle_to_matrix(torch.randn(24, 3))
    other = axis_angle_to_matrix(torch.randn(24, 3))
    for frame in range(3):
        for number, its in ((0, pose), (1, other)):
            found, transl = smoother.smooth(number, frame / 25, its, torch.ones(3))
            assert torch.allclose(found, its, atol=1e-6) and torch.equal(transl, torch.ones(3))
