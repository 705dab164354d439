"""The benchmark on photographs counts as COCO does."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from benchmarks import photographs
from benchmarks.photographs import LIMBS, Annotation, annotations, judge, on_shards, summary
from pose_rft.body.joints import COCO17, H36M32, SMPL24
from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.predict.place import Place, Points
from pose_rft.predict.prediction import Prediction, Seen
from pose_rft.predict.regions import Region
from pose_rft.record import Keypoints, Record
from tests.support.beside import beside
from tests.support.training_fakes import FakeShards, image_record, record

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


def coco_folder(root: Path, name: str = "x.jpg") -> Path:
    """One picture with `annotated()` in it."""
    person = annotated()
    points = [[*person.keypoints[name], 2] if name in person.keypoints else [0, 0, 0] for name in COCO17.joints]
    box = [*person.box[:2], *(person.box[2:] - person.box[:2])]
    row = {"image_id": 7, "bbox": box, "keypoints": np.ravel(points).tolist(), "iscrowd": 0}
    (root / "annotations").mkdir()
    content = {"images": [{"id": 7, "file_name": name}], "annotations": [row]}
    (root / "annotations/person_keypoints_some.json").write_text(json.dumps(content))
    cv2.imwrite(str(root / "x.jpg"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    return root


def printed(monkeypatch, capsys, root: Path, photograph: Callable) -> dict:
    """What `--json` prints with a predictor that answers so."""
    monkeypatch.setattr(photographs, "Predictor", lambda *_: SimpleNamespace(photograph=photograph))
    monkeypatch.setattr(sys, "argv", ["photographs", str(root), "--json"])
    photographs.main()
    return json.loads(capsys.readouterr().out)


KEYS = {"people", "found", "false", "median_percent_of_box", "pck10", "encoder_median_percent_of_box", "encoder_pck10"}


def test_json_of_a_coco_folder_has_all_keys_and_nothing_else_is_printed(tmp_path, monkeypatch, capsys):
    found = printed(monkeypatch, capsys, coco_folder(tmp_path), lambda photograph: [predicted()])
    assert set(found) == KEYS
    assert (found["people"], found["found"], found["false"], found["pck10"]) == (1, 1, 0, 1.0)


def test_a_picture_in_which_nobody_is_found_counts_as_missed(tmp_path, monkeypatch, capsys):
    def nobody(photograph):
        raise PoseRftError("shows no person")

    found = printed(monkeypatch, capsys, coco_folder(tmp_path), nobody)
    assert set(found) == KEYS
    assert (found["people"], found["found"], found["pck10"], found["median_percent_of_box"]) == (1, 0, None, None)


def test_a_picture_that_is_not_there_and_a_folder_without_annotations_are_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"has no annotations/person_keypoints"):
        printed(monkeypatch, capsys, tmp_path, lambda photograph: [])
    with pytest.raises(SystemExit, match=r"lacks gone\.jpg"):
        printed(monkeypatch, capsys, coco_folder(tmp_path, "gone.jpg"), lambda photograph: [])


@pytest.fixture
def split(tmp_path, tiny_folder, monkeypatch):
    """Measures a split of these records, whose people are predicted with `turn` at the right elbow."""
    body = load_body_model(tiny_folder)

    def go(records: list[Record], most: int = 100, turn: float = 0.0) -> tuple[dict[str, float], list[str]]:
        asked: list[str] = []

        def photograph(photograph, boxes):
            assert boxes[0].side == 40.0  # the person's own box, of `image_record`
            asked.append(photograph.path.name)
            fit = next(one for one in records if one.key == photograph.path.name).smpl or record(0).smpl
            pose = np.concatenate([fit.global_orient[None], fit.body_pose])
            pose[SMPL24.index("right_elbow"), 2] += turn
            return [SimpleNamespace(rotations=axis_angle_to_matrix(torch.from_numpy(pose)))]

        monkeypatch.setattr(
            photographs, "ShardSet", lambda folder: FakeShards(records, f"{len(asked)}-{len(records)}-")
        )
        predictor = SimpleNamespace(body=body, photograph=photograph)
        return on_shards(predictor, tmp_path / "test", most), asked

    return go


def without_shape(i: int, **fields: object) -> Record:
    plain = image_record(i, **fields)
    return replace(plain, smpl=replace(plain.smpl, betas=np.zeros(10, np.float32)))


def test_the_fits_of_a_split_themselves_have_no_error_and_others_one_of_their_own(split):
    exact, asked = split([without_shape(i) for i in range(3)])
    assert exact["people"] == len(asked) == 3 and exact["mpjpe"] < 0.01 and exact["pa_mpjpe"] < 0.02
    wrong, _ = split([without_shape(i) for i in range(4)], turn=1.0)
    assert wrong["mpjpe"] > 1 and wrong["pa_mpjpe"] > 1


def test_of_a_large_split_people_from_all_of_it_are_taken(split):
    found, asked = split([without_shape(i) for i in range(9)], most=4)
    assert found["people"] == len(asked) == 3 and asked[-1] == without_shape(6).key


def test_measured_joints_are_the_truth_and_people_without_them_are_left_out(split):
    points = np.concatenate([RNG.normal(size=(len(H36M32), 3)), np.ones((len(H36M32), 1))], 1).astype(np.float32)
    measured = replace(without_shape(0), joints3d=Keypoints(points, H36M32.name))
    found, asked = split([measured, without_shape(1)])
    assert asked == [measured.key] and np.isfinite(found["mpjpe"]) and found["mpjpe"] > 1


def test_a_split_without_3d_truth_is_named(split):
    with pytest.raises(PoseRftError, match="no 3D truth"):
        split([replace(image_record(0), smpl=None)])


REAL = beside("real/coco")


@pytest.mark.pipeline
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
