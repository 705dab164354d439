"""Everyone is found once, whichever tile shows them."""

import numpy as np
import pytest
import torch

from pose_rft.policy.blazepose import LANDMARKS, Landmarks
from pose_rft.predict import people
from pose_rft.predict.people import Person, around, distinct, extent, find_people
from pose_rft.predict.person_detector import Candidate, anchors, overlap, tiles
from pose_rft.predict.person_detector import distinct as distinct_boxes
from pose_rft.predict.regions import Region

RNG = np.random.default_rng(1)
BODY = RNG.uniform(-0.5, 0.5, (len(LANDMARKS), 2))
BODY[people._SHOULDERS] = [[0.1, -0.3], [-0.1, -0.3]]
BODY[people._HIPS] = [[0.1, 0.1], [-0.1, 0.1]]
BODY[people._EARS] = [[0.05, -0.45], [-0.05, -0.45]]


def person(x: float, y: float, size: float, sure: float = 1.0, angle: float = 0.0) -> Person:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = np.array([x, y]) + size * BODY @ turn.T
    seen = np.full(len(LANDMARKS), sure)
    return Person(Region((x, y), size), landmarks, seen, 1.0, extent(landmarks, 1000, 1000))


def test_two_views_of_one_person_are_one_and_neighbours_are_two():
    found = [(person(300, 300, 200), 0.9), (person(306, 304, 210), 0.8), (person(480, 300, 200), 0.5)]
    assert distinct(found) == [found[0][0], found[2][0]]


def test_a_part_of_somebody_is_no_person_whichever_was_surer():
    whole, glove = person(300, 300, 400), person(320, 250, 60)
    for sure in (0.3, 0.5):
        assert distinct([(whole, 0.4), (glove, sure)]) == [whole]
    assert glove in distinct([(whole, 0.4), (glove, 0.9)])  # a child in front of an adult


def test_the_square_around_a_turned_body_has_the_torso_upright():
    for angle in np.radians([0, 60, 150, -90]):
        upright, turned = around(person(300, 300, 200, angle=angle))
        assert upright.angle == 0 and np.isclose(np.angle(np.exp(1j * (turned.angle - angle))), 0)
        local = (person(300, 300, 200, angle=angle).landmarks - turned.center) @ turned.axes()
        assert np.abs(local).max() <= turned.side / 2


def test_people_come_from_left_to_right_and_an_empty_region_is_nobody():
    true = [person(600, 300, 150), person(200, 300, 150)]

    def see(pixels: torch.Tensor) -> Landmarks:
        points = torch.zeros(len(pixels), len(LANDMARKS), 3)
        score = torch.zeros(len(pixels))
        for index, region in enumerate(asked.pop(0)):
            near = [p for p in true if np.hypot(*np.subtract(p.region.center, region.center)) < 80]
            if near:
                local = (near[0].landmarks - region.center) @ region.axes() / (region.side / 2)
                points[index, :, :2], score[index] = torch.from_numpy(local).float(), 1.0
        return Landmarks(points, torch.ones(len(pixels), len(LANDMARKS)), torch.zeros_like(points), score)

    asked: list[list[Region]] = []
    original = people.look

    def look(pixels, regions, network):
        asked.append(list(regions))
        return original(pixels, regions, network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people, "look", look)
        candidates = [
            Candidate(0.9, Region((x, 300), 190, angle), np.array([x - 20, 200, x + 20, 240.0]))
            for x, angle in ((600, 0.2), (200, -0.1), (860, 0.0), (605, 0.0))
        ]
        found = find_people(np.zeros((600, 1000, 3), np.uint8), candidates, see)
    assert [round(p.landmarks[:, 0].mean()) for p in found] == [round(p.landmarks[:, 0].mean()) for p in true[::-1]]


def test_tiles_cover_every_point_and_overlap_by_half():
    for size in ((640, 480), (300, 900), (224, 224)):
        squares = tiles(*size)
        for share in (1, 2, 3):
            mine = [s for s in squares if np.isclose(s.side, max(size) / share)]
            for point in RNG.uniform(0, 1, (200, 2)) * size:
                assert any((np.abs(np.subtract(point, s.center)) <= s.side / 2 + 1e-9).all() for s in mine)


def test_there_is_an_anchor_for_every_prediction_of_the_detector():
    found = anchors()
    assert found.shape == (2254, 2) and found.min() > 0 and found.max() < 1
    assert np.allclose(found[:4], [[4 / 224] * 2] * 2 + [[12 / 224, 4 / 224]] * 2)


def test_the_surest_of_overlapping_boxes_stays():
    boxes = [np.array([0, 0, 10, 10.0]), np.array([1, 0, 11, 10.0]), np.array([40, 0, 50, 10.0])]
    assert overlap(boxes[0], boxes[1]) == pytest.approx(9 / 11) and overlap(boxes[0], boxes[2]) == 0
    candidates = [Candidate(score, Region((0, 0), 1), box) for score, box in zip((0.5, 0.9, 0.4), boxes, strict=True)]
    assert distinct_boxes(candidates) == [candidates[1], candidates[2]]
