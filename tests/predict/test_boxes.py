"""A box that cannot be meant is refused, wherever it comes from."""

import json

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.predict.boxes import boxes_from_coco, check_inside, parse_box
from pose_rft.record import Box


@pytest.mark.parametrize("text", ["nan,0,10,10", "0,inf,10,10", "0,0,-inf,4", "1,2,3", "1,2,3,4,5", "a,b,c,d", ""])
def test_what_is_no_four_finite_numbers_is_refused(text):  # B8
    with pytest.raises(PoseRftError, match="is not X,Y,W,H"):
        parse_box(text)


def test_a_box_without_area_is_refused():
    with pytest.raises(PoseRftError, match="no area"):
        parse_box("1,2,0,4")


@pytest.mark.parametrize("box", ["1,1,1e308,1e308", "0,0,1e-300,1e-300", "5,5,0.5,0.5", "-1e9,0,2e9,5"])
def test_a_box_of_a_size_that_no_picture_has_is_refused(box):
    with pytest.raises(PoseRftError, match=r"px large, expected 1 to 100000"):
        parse_box(box)


@pytest.mark.parametrize("box", ["200,0,50,50", "0,-90,40,40", "-60,0,40,40", "0,1e300,5,5"])
def test_a_box_outside_the_picture_is_refused(box):  # A7
    with pytest.raises(PoseRftError, match=r"lies outside photo\.jpg, which is 120 x 90 px"):
        check_inside(parse_box(box), (120, 90), "photo.jpg")


@pytest.mark.parametrize("box", ["100,70,50,50", "-20,-20,30,30", "-100,-100,400,400"])
def test_a_box_that_meets_the_picture_is_accepted(box):
    check_inside(parse_box(box), (120, 90), "photo.jpg")


def coco(path, *boxes, **more):
    rows = [{"id": i, "image_id": 1, "bbox": box, **more} for i, box in enumerate(boxes)]
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": rows}))
    return path


def test_boxes_of_a_coco_file_are_squares_around_its_people(tmp_path):
    found = boxes_from_coco(coco(tmp_path / "f.json", [10, 20, 30, 40], [0, 0, 0, 5]))
    assert found == {"a.jpg": [Box((25, 40), 40, "annotation")]}
    assert boxes_from_coco(coco(tmp_path / "f.json", [1, 2, 3, 4], iscrowd=1)) == {"a.jpg": []}


@pytest.mark.parametrize("box", [[float("nan"), 0, 1, 1], [0, float("inf"), 1, 1], [1, 2, 3]])
def test_a_coco_box_that_is_no_four_finite_numbers_is_named(tmp_path, box):  # B8
    with pytest.raises(PoseRftError, match=r"annotation 0 in .*f\.json .* four finite numbers"):
        boxes_from_coco(coco(tmp_path / "f.json", box))


@pytest.mark.parametrize("content", ["[]", "{}", "no json", '{"images": 3, "annotations": []}'])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(PoseRftError, match=r"f\.json"):
        boxes_from_coco(tmp_path / "f.json")
