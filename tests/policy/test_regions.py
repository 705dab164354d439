"""A turned square shows what it says, and its angle can be undone."""

import numpy as np
import pytest

from pose_rft.policy import person_crops as crops
from pose_rft.policy.person_crops import Square
from pose_rft.predict.regions import Region

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("square", [Square(10, 5, 64), Square(-20, -30, 90.5), Square(3.3, 7.7, 31)])
def test_an_upright_region_is_the_crop_that_training_sees(square):
    picture = RNG.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    found = Region.of(square).cut(picture, 64).astype(int)
    assert np.abs(found - crops.crop(picture, square, 64)).max() <= 1


@pytest.mark.parametrize("side", [60, 300])
@pytest.mark.parametrize("angle", np.radians([0, 30, 90, 180, -120]))
def test_a_place_in_the_crop_is_where_the_picture_has_it(angle, side):
    picture = np.zeros((400, 500, 3), np.uint8)
    y, x = np.mgrid[:400, :500]
    region = Region((240, 210), side, angle)
    for point in ([0.0, 0.0], [0.5, -0.4], [-0.6, 0.3]):
        at = region.to_picture(np.array(point))
        picture[:] = (255 * np.exp(-((x + 0.5 - at[0]) ** 2 + (y + 0.5 - at[1]) ** 2) / (side / 15) ** 2))[..., None]
        crop = region.cut(picture, 64)[..., 0].astype(float)
        weights = crop / crop.sum()
        found = [(weights * (grid + 0.5)).sum() / 32 - 1 for grid in np.mgrid[:64, :64][::-1]]
        assert np.abs(np.array(found) - point).max() < 0.03


def test_the_upward_direction_of_a_turned_person_is_up_in_the_crop():
    region = Region((50, 50), 40, np.radians(90))  # a person whose head points right
    assert np.allclose(region.to_picture(np.array([0.0, -1.0])), [70, 50])


def test_a_root_turned_back_points_where_the_person_points():
    region = Region((0, 0), 2, np.radians(35))
    in_crop = np.array([0.2, -0.9, 0.4])  # camera axes: x right, y down, z forward
    turned = region.root_turn() @ in_crop
    assert np.allclose(turned[:2], region.to_picture(in_crop[:2])) and turned[2] == in_crop[2]


def test_a_region_outside_the_picture_is_black():
    picture = np.full((50, 50, 3), 255, np.uint8)
    assert Region((500, 500), 40, 0.3).cut(picture, 16).max() == 0
    half = Region((0, 25), 40).cut(picture, 32)
    assert half[:, :14].max() == 0 and half[8:24, 18:].min() == 255


def test_the_view_of_a_crop_looks_along_the_ray_through_its_middle() -> None:
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    assert np.allclose(Region((320.0, 240.0), 100.0).view_turn(K), np.eye(3))
    turn = Region((620.0, 40.0), 100.0).view_turn(K)
    ahead = turn @ np.array([0.0, 0.0, 1.0])
    assert np.allclose(ahead / ahead[2], [0.6, -0.4, 1.0])
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.isclose(np.linalg.det(turn), 1)
    axis = np.cross([0.0, 0.0, 1.0], ahead)
    assert np.allclose(turn @ axis, axis)  # the shortest turn: nothing rolls
