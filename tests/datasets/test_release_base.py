import numpy as np
import pytest

from pose_rft.datasets.common.base import Unit, box_around, sample_key, square_box
from pose_rft.errors import PoseRftError
from pose_rft.record import KEY


def test_keys_hold_no_dots_spaces_or_slashes() -> None:
    key = sample_key("h36m", "S1", "Directions 1", "54138969", 5)
    assert key == "h36m_S1_Directions-1_54138969_000005" and KEY.fullmatch(key)
    assert sample_key("a/b.c", "..", "ä") == "a-b-c"


def test_a_unit_refuses_a_key_that_a_tar_member_may_not_have() -> None:
    with pytest.raises(PoseRftError, match="Unit key"):
        Unit("S1 Directions.1", 1, ())


def test_boxes_are_squares_around_the_longer_side() -> None:
    box = box_around(np.array([[10.0, 20.0], [30.0, 80.0]]), 1.2, "joints2d x1.2")
    assert box.center == (20.0, 50.0) and box.side == 72.0
    assert square_box(5, 5, 5, 5, 1.2, "point").side == 1.0
    with pytest.raises(ValueError, match="at least one point"):
        box_around(np.zeros((0, 2)), 1.2, "none")
