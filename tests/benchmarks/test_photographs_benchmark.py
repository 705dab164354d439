"""The benchmark on photographs counts as COCO does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.photographs import LIMBS, Annotation, annotations, judge, summary
from pose_rft.body.joints import COCO17, SMPL24
from pose_rft.errors import PoseRftError
from pose_rft.predict.place import Place, Points
from pose_rft.predict.prediction import Prediction, Seen
from pose_rft.predict.regions import Region

SIZE = (640, 480)
K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
RNG = np.random.default_rng(0)


def predicted(shift: float = 0.0, seen_shift: float = 0.0) -> Prediction:
    """A body of about 200 px in the middle, moved right by `shift` px; its 2D points moved by `seen_shift`."""
    joints = torch.from_numpy(RNG_JOINTS + np.array([shift / 100, 0, 5]))
    points = Points(SMPL24.joints, RNG_JOINTS[:, :2] * 100 + np.array([320 + seen_shift, 240]), np.ones(24))
    blank = torch.zeros(0)
    return Prediction(
        "a", "", "", blank, None, None, blank, joints, blank, Seen(Region((0, 0), 1), "detector", 1.0, points),
        Place(K, np.zeros(3), "keypoints"),
    )  # fmt: skip


RNG_JOINTS = np.concatenate([RNG.uniform(-1, 1, (24, 2)), np.zeros((24, 1))], 1)


def annotated(counts: bool = True) -> Annotation:
    where = RNG_JOINTS[:, :2] * 100 + [320, 240]
    keypoints = {name: where[SMPL24.index(name)] for name in LIMBS}
    limbs = np.stack(list(keypoints.values()))
    return Annotation(np.concatenate([limbs.min(0), limbs.max(0)]), keypoints, counts)


def test_a_perfect_body_has_no_error_and_a_moved_one_its_share_of_the_box():
    person = annotated()
    moved = 0.05 * person.side
    for shift, expected in ((0.0, 0.0), (moved, 5.0)):
        found = summary([judge([predicted(shift, 2 * shift)], [person], SIZE)])
        assert (found["people"], found["found"], found["false"]) == (1, 1, 0)
        assert found["median_percent_of_box"] == pytest.approx(expected, abs=0.02)
        assert found["pck10"] == 1 and found["encoder_median_percent_of_box"] == pytest.approx(2 * expected, abs=0.02)


def test_one_prediction_finds_one_person_and_the_second_is_false():
    found = summary([judge([predicted(), predicted(3)], [annotated()], SIZE)])
    assert (found["people"], found["found"], found["false"]) == (1, 1, 1)


def test_crowds_and_people_without_keypoints_are_left_out():
    found = summary([judge([predicted()], [annotated(counts=False)], SIZE)])
    assert (found["people"], found["found"], found["false"], found["pck10"]) == (0, 0, 0, None)


def test_somebody_far_away_is_not_found():
    found = summary([judge([predicted(400)], [annotated()], SIZE)])
    assert (found["people"], found["found"], found["false"]) == (1, 0, 1)


def test_a_coco_file_becomes_its_people(tmp_path):
    points = [[10, 20, 2]] + [[0, 0, 0]] * 16
    row = {"image_id": 7, "bbox": [5, 6, 30, 40], "keypoints": np.ravel(points).tolist(), "iscrowd": 0}
    rows = [row, {**row, "iscrowd": 1}, {**row, "keypoints": [0] * 51}]
    content = {"images": [{"id": 7, "file_name": "x.jpg"}], "annotations": rows}
    (tmp_path / "f.json").write_text(json.dumps(content))
    people = annotations(tmp_path / "f.json")["x.jpg"]
    assert [person.counts for person in people] == [True, False, False]
    assert people[0].box.tolist() == [5, 6, 35, 46] and set(people[0].keypoints) == {COCO17.joints[0]}


def test_another_file_is_refused(tmp_path):
    (tmp_path / "f.json").write_text('{"images": []}')
    with pytest.raises(PoseRftError, match="no COCO keypoint file"):
        annotations(tmp_path / "f.json")


REAL = Path(__file__).parents[3] / "shared/real/coco"


@pytest.mark.skipif(not REAL.is_dir(), reason="the four COCO photographs lie beside the project in shared/real only")
def test_people_of_real_photographs_are_found():
    """At least 10 of the 12 annotated people at IoU 0.5, at most two false ones."""
    import cv2

    from benchmarks.photographs import FOUND
    from pose_rft.policy.blazepose import import_blazepose
    from pose_rft.policy.params import BlazePoseParams
    from pose_rft.predict.people import find_people
    from pose_rft.predict.person_detector import PersonDetector, overlap

    network, detector = import_blazepose(BlazePoseParams(variant="full", width=1, layers=1)), PersonDetector()
    found = shown = 0
    for name, people in annotations(REAL / "annotations/person_keypoints_val2017.json").items():
        pixels = cv2.cvtColor(cv2.imread(str(REAL / "val2017" / name)), cv2.COLOR_BGR2RGB)
        extents = [person.extent for person in find_people(pixels, detector(pixels), network.landmarks)]
        shown += len(extents)
        found += sum(any(overlap(e, p.box) >= FOUND for e in extents) for p in people if p.counts)
    assert found >= 10 and shown - found <= 2
