import pickle
from pathlib import Path

import numpy as np
import pytest

from pose_rft.body.cameras import project
from pose_rft.body.joints import SPIN24
from pose_rft.datasets.label_files.reader import LabelFiles, LabelFilesParams
from pose_rft.datasets.label_files.rows import read_label_rows
from pose_rft.errors import PoseRftError
from tests.support.flat_studio import shown
from tests.support.label_truth import SIDE, hmr2_arrays, human_data_arrays, spin_arrays, truth, write_pictures
from tests.support.release_truth import read_all

NAMES = ["a/one.jpg", "a/two.1.jpg", "a/one.jpg"]


@pytest.fixture(scope="module")
def people(body_models: Path):
    return [truth(body_models, seed, center) for seed, center in enumerate([(80, 70), (70, 75), (90, 60)])]


def reader(root: Path, body_models: Path, arrays: dict[str, np.ndarray], **file) -> LabelFiles:
    (root / "label_files").mkdir(exist_ok=True)
    np.savez(root / "label_files/rows.npz", **arrays)
    write_pictures(root / "pictures", ["a/one.jpg", "a/two.1.jpg"])
    params = LabelFilesParams(files={"some_test": {"path": "rows.npz", "images": "pictures", **file}})
    return LabelFiles(root, params, body_models, 92)


def layouts(people) -> dict[str, dict[str, np.ndarray]]:
    return {
        "spin": spin_arrays(people, NAMES),
        "hmr2": hmr2_arrays(people, NAMES),
        "humandata": human_data_arrays(people, NAMES, transl=False),
    }


@pytest.mark.parametrize("layout", ["spin", "hmr2", "humandata"])
def test_every_layout_gives_the_bodies_and_joints_that_were_written(
    tmp_path: Path, body_models: Path, people, layout: str
) -> None:
    release = reader(tmp_path, body_models, layouts(people)[layout])
    records, defects = read_all(release, "some_test")
    assert not defects and len(records) == 3
    by_row = {int(record.key[-6:]): record for record in records}
    for row, person in enumerate(people):
        record = by_row[row]
        assert shown(record) == row % 2 and record.smpl.source == layout
        assert record.box.center == tuple(person.center) and record.box.side == pytest.approx(SIDE)
        np.testing.assert_allclose(record.smpl.body_pose, person.pose[1:], atol=1e-6)
        np.testing.assert_allclose(record.smpl.betas, person.betas, atol=1e-6)
        np.testing.assert_allclose(record.joints2d.points, person.joints2d, atol=1e-3)
        assert record.joints2d.joint_set == record.joints3d.joint_set == "spin24"
    if layout != "humandata":
        assert {by_row[0].smpl.gender, by_row[1].smpl.gender} == (
            {"male", "female"} if layout == "spin" else {"neutral"}
        )


def test_bodies_stand_where_their_2d_joints_say(tmp_path: Path, body_models: Path, people) -> None:
    records, _ = read_all(reader(tmp_path, body_models, hmr2_arrays(people, NAMES)), "some_test")
    for record in records:
        person = people[int(record.key[-6:])]
        np.testing.assert_allclose(record.smpl.transl[:2], person.transl[:2], atol=2e-3)
        assert record.smpl.transl[2] == pytest.approx(person.transl[2], rel=0.01)
        apart = project(record.joints3d.points[:, :3], record.camera) - record.joints2d.points[:, :2]
        assert np.abs(apart).max() < 0.5


def test_translations_of_humandata_are_kept_and_no_camera_is_invented(
    tmp_path: Path, body_models: Path, people
) -> None:
    records, _ = read_all(reader(tmp_path, body_models, human_data_arrays(people, NAMES, transl=True)), "some_test")
    for record in records:
        person = people[int(record.key[-6:])]
        np.testing.assert_allclose(record.smpl.transl, person.transl, atol=1e-5)
        assert record.camera is None and record.smpl.gender == "male"


def test_the_unit_of_the_scale_is_told_by_its_size(tmp_path: Path, people) -> None:
    for scale in (np.full(3, SIDE), np.full(3, SIDE / 200)):
        np.savez(tmp_path / "a.npz", **spin_arrays(people, NAMES, scale=scale))
        np.testing.assert_allclose(read_label_rows(tmp_path / "a.npz").side, SIDE)


def test_openpose_fills_only_what_the_19_lack(tmp_path: Path, people) -> None:
    arrays = hmr2_arrays(people, NAMES)
    arrays["body_keypoints_2d"][:, 11] = (1.0, 2.0, 0.5)  # OpenPose's right ankle; the 19 have a better one
    np.savez(tmp_path / "a.npz", **arrays)
    rows = read_label_rows(tmp_path / "a.npz")
    np.testing.assert_allclose(rows.joints2d, np.stack([p.joints2d for p in people]))


def test_rows_without_a_body_or_with_a_wrong_box_say_so(tmp_path: Path, body_models: Path, people) -> None:
    arrays = spin_arrays(people, NAMES, has_smpl=np.array([1, 0, 1]), scale=np.array([0.6, 0.6, 0.0]))
    records, defects = read_all(reader(tmp_path, body_models, arrays), "some_test")
    assert [(d.row, d.reason) for d in defects] == [("2", "empty box")]
    without = next(record for record in records if record.smpl is None)
    assert without.key.endswith("000001") and without.joints3d is not None and without.camera is not None
    bare = {name: arrays[name] for name in ("imgname", "center", "scale", "gender")}
    _, defects = read_all(reader(tmp_path, body_models, bare), "some_test")
    assert {d.reason for d in defects} == {"no label", "empty box"}


def test_damaged_numbers_cost_a_label_not_the_conversion(tmp_path: Path, body_models: Path, people) -> None:
    arrays = spin_arrays(people, NAMES)
    arrays["pose"][0, 5], arrays["pose"][1, 0] = np.nan, 1e300
    arrays["part"][2, 3, 0], arrays["S"][2, 4, 1] = np.inf, -1e300
    records, defects = read_all(reader(tmp_path, body_models, arrays), "some_test")
    by_row = {int(record.key[-6:]): record for record in records}
    assert sorted(by_row) == [2] and by_row[2].smpl is not None
    assert sorted((d.row, d.reason, d.detail) for d in defects) == [
        (str(row), "broken fit", f"rows.npz, row {row}: a number that is not finite") for row in (0, 1)
    ]  # C2
    assert (by_row[2].joints2d.points[:, 2] == 0).nonzero()[0].tolist() == [3]
    assert (by_row[2].joints3d.points[:, 3] == 0).nonzero()[0].tolist() == [4]


def test_a_file_without_any_joints_places_bodies_by_their_boxes(tmp_path: Path, body_models: Path, people) -> None:
    arrays = spin_arrays(people, NAMES)
    del arrays["part"], arrays["S"]
    records, _ = read_all(reader(tmp_path, body_models, arrays), "some_test")
    for record in records:
        assert record.joints2d is None and record.joints3d is None
        assert record.smpl.transl[2] == pytest.approx(people[0].transl[2], rel=0.5)


def test_missing_pictures_are_defects_of_all_their_rows(tmp_path: Path, body_models: Path, people) -> None:
    release = reader(tmp_path, body_models, spin_arrays(people, NAMES))
    assert len(release.inventory()) == 3 and release.params.splits == ("some_test",)
    (tmp_path / "pictures/a/one.jpg").unlink()
    records, defects = read_all(release, "some_test")
    assert len(records) == 1 and sorted(d.row for d in defects) == ["0", "2"]
    with pytest.raises(PoseRftError, match="no split 'other'"):
        release.units("other")


class Payload:
    def __reduce__(self):
        import os

        return os.system, ("true",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pose": np.zeros((2, 72))}, "no spin label file"),
        ({"imgname": np.array([Payload()] * 3, object)}, "system"),
    ],
)
def test_hostile_or_foreign_files_are_refused(tmp_path: Path, body_models: Path, people, change, sentence) -> None:
    release = reader(tmp_path, body_models, spin_arrays(people, NAMES, **change))
    with pytest.raises(PoseRftError, match=sentence):
        read_all(release, "some_test")


def test_other_npz_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    with pytest.raises(PoseRftError, match="is it a label file"):
        read_label_rows(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps({}))
    with pytest.raises(PoseRftError, match=r"b\.npz"):
        read_label_rows(tmp_path / "b.npz")


def test_spins_joints_have_the_published_order() -> None:
    assert SPIN24.joints[:3] == ("right_ankle", "right_knee", "right_hip") and SPIN24.joints[12:14] == (
        "neck",
        "head_top",
    )
    # SPIN constants.py: flip permutation of the 24.
    assert SPIN24.flip == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, *range(12, 20), 21, 20, 23, 22)


def test_a_file_whose_rows_spin_did_not_fit_gives_joints_without_bodies(
    tmp_path: Path, body_models: Path, people
):  # A9
    arrays = spin_arrays(people, NAMES, valid_fit=np.array([1, 0, 1]))
    del arrays["has_smpl"]
    records, defects = read_all(reader(tmp_path, body_models, arrays), "some_test")
    assert not defects
    assert {int(record.key[-6:]): record.smpl is not None for record in records} == {0: True, 1: False, 2: True}
    assert all(record.joints2d is not None for record in records)


def test_formats_that_no_reader_takes_are_called_by_their_name(tmp_path: Path, people) -> None:  # C15
    spin = spin_arrays(people, NAMES)
    short = spin | {"part": spin["part"][:, :17], "S": spin["S"][:, :17]}
    data = human_data_arrays(people, NAMES, transl=True)
    old = data | {"keypoints2d": np.zeros((3, 144, 3)), "keypoints2d_mask": np.ones(144)}
    for arrays, kind in ((short, "MMPose's npz .* with 17 joints"), (old, "HumanData .* with 144 joints")):
        np.savez(tmp_path / "rows.npz", **arrays)
        with pytest.raises(PoseRftError, match=rf"rows\.npz is {kind}, a format that no reader takes"):
            read_label_rows(tmp_path / "rows.npz")


@pytest.mark.parametrize("name", ["../secret.jpg", "\ud83d.jpg", "/etc/passwd"])
def test_a_name_that_leads_elsewhere_is_a_defect_of_its_rows(tmp_path: Path, body_models: Path, people, name) -> None:
    release = reader(tmp_path, body_models, spin_arrays(people, [name, *NAMES[1:]]))  # B3
    records, (defect,) = read_all(release, "some_test")
    assert len(records) == 2 and (defect.row, defect.reason) == ("0", "unsafe name")
    assert all(path.name != "secret.jpg" for path in release.inventory())
