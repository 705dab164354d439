"""Training npz of BEDLAM and CameraHMR and SMPLer-X's HumanData as label files."""

from pathlib import Path

import numpy as np
import pytest

from pose_rft.body.cameras import project
from pose_rft.body.joints import LIMB_JOINTS, SMPL24, SPIN24
from pose_rft.datasets.fits.sources import posed_joints
from pose_rft.datasets.label_files.reader import LabelFiles, LabelFilesParams
from pose_rft.datasets.label_files.rows import read_label_rows
from pose_rft.errors import PoseRftError
from tests.support.beside import beside
from tests.support.label_truth import SIDE, camera_arrays, smplx_arrays, truth, write_pictures
from tests.support.release_truth import read_all

NAMES = ["one.jpg", "two.jpg"]
CASES = beside("cases/labels")
LIMBS = SPIN24.indices(LIMB_JOINTS)


@pytest.fixture(scope="module")
def people(body_models: Path):
    return [truth(body_models, seed, center) for seed, center in enumerate([(80, 70), (70, 75)])]


def records_of(root: Path, body_models: Path, arrays: dict[str, np.ndarray]):
    (root / "label_files").mkdir(exist_ok=True)
    np.savez(root / "label_files/rows.npz", **arrays)
    write_pictures(root / "pictures", NAMES)
    params = LabelFilesParams(files={"coco_train": {"path": "rows.npz", "images": "pictures"}})
    records, defects = read_all(LabelFiles(root, params, body_models, 92), "coco_train")
    return records, defects


def test_bodies_of_camerahmr_stand_in_the_camera_of_their_file(tmp_path: Path, body_models: Path, people) -> None:  # F
    records, defects = records_of(tmp_path, body_models, camera_arrays(people, NAMES))
    assert not defects and len(records) == 2
    for record, person in zip(records, people, strict=True):
        np.testing.assert_allclose(record.smpl.transl, person.transl, atol=1e-5)
        np.testing.assert_allclose(record.smpl.body_pose, person.pose[1:], atol=1e-6)
        np.testing.assert_allclose(record.smpl.betas, person.betas, atol=1e-6)
        np.testing.assert_allclose(record.joints2d.points, person.joints2d, atol=1e-3)
        assert record.box.center == tuple(person.center) and record.box.side == pytest.approx(SIDE)
        joints = posed_joints(person.pose[None], person.betas[None], body_models)[0] + record.smpl.transl
        apart = project(joints, record.camera)[SMPL24.indices(LIMB_JOINTS)] - record.joints2d.points[LIMBS, :2]
        assert np.abs(apart).max() < 0.5  # the file's own camera sees the body where its keypoints are
        assert record.smpl.valid.all() and record.smpl.body_model == "smpl"


def test_a_file_without_translations_is_placed_as_other_label_files_are(tmp_path: Path, body_models, people) -> None:
    arrays = camera_arrays(people, NAMES, cam_ext=np.zeros((2, 4, 4)))
    del arrays["trans_cam"]
    for record, person in zip(records_of(tmp_path, body_models, arrays)[0], people, strict=True):
        assert record.smpl.transl[2] == pytest.approx(person.transl[2], rel=0.01)
        assert ("camera", "cam_int and translation of the file") not in record.provenance


@pytest.mark.parametrize("count", [24, 44, 45, 127])
def test_keypoints_are_told_apart_by_their_number(tmp_path: Path, body_models: Path, people, count: int) -> None:
    points = camera_arrays(people, NAMES)["gtkps"]
    if count == 24:
        points = np.stack([person.joints2d for person in people])
    elif count != 44:
        points = np.zeros((2, count, 3))
        points[:, SMPL24.indices(LIMB_JOINTS)] = np.stack([person.joints2d[LIMBS] for person in people])
    records, _ = records_of(tmp_path, body_models, camera_arrays(people, NAMES, gtkps=points))
    for record, person in zip(records, people, strict=True):
        np.testing.assert_allclose(record.joints2d.points[LIMBS], person.joints2d[LIMBS], atol=1e-3)
    with pytest.raises(PoseRftError, match=r"no labels as BEDLAM or CameraHMR writes them .*17 joints"):
        records_of(tmp_path, body_models, camera_arrays(people, NAMES, gtkps=np.zeros((2, 17, 3))))


def poses_of_smplx(people) -> np.ndarray:
    pose = np.zeros((2, 55, 3))
    pose[:, :22] = np.stack([person.pose[:22] for person in people])
    return pose.reshape(2, 165)


def test_of_smplx_bodies_hands_and_shape_are_unknown(tmp_path: Path, body_models: Path, people) -> None:  # F
    bedlam = camera_arrays(people, NAMES, pose_cam=poses_of_smplx(people), shape=np.ones((2, 11)))
    for arrays in (bedlam, smplx_arrays(people, NAMES)):
        records, defects = records_of(tmp_path, body_models, arrays)
        assert not defects and len(records) == 2
        for record, person in zip(records, people, strict=True):
            np.testing.assert_allclose(record.smpl.body_pose[:21], person.pose[1:22], atol=1e-6)
            assert not record.smpl.betas.any() and not record.smpl.body_pose[21:].any()
            assert record.smpl.valid.sum() == 22 and record.smpl.body_model == "smplx"
            np.testing.assert_allclose(record.joints2d.points, person.joints2d, atol=1e-3)
            assert record.smpl.transl[2] > 1  # a translation of 0 is none


def test_rows_that_are_damaged_are_defects_or_keep_their_joints(tmp_path: Path, body_models: Path, people) -> None:
    arrays = camera_arrays(people, NAMES)
    arrays["pose_cam"][0, 5] = np.nan
    arrays["center"] = np.where([[True], [False]], arrays["center"], np.nan)
    records, defects = records_of(tmp_path, body_models, arrays)
    assert len(records) + len(defects) == 2 and "empty box" in {defect.reason for defect in defects}
    assert all(record.smpl is None for record in records)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the project")
@pytest.mark.parametrize(("name", "layout"), [("camerahmr_like.npz", "camera"), ("smplerx_like.npz", "smplx")])
def test_the_cases_are_read(name: str, layout: str) -> None:  # F
    rows = read_label_rows(CASES / name)
    assert rows.layout == layout and len(rows) == 4 and rows.has_smpl.all()
    given = np.load(CASES / name, allow_pickle=True)  # our own file
    if layout == "camera":
        np.testing.assert_allclose(rows.transl[0], [0, 0, 5])
        np.testing.assert_allclose(rows.pose.reshape(4, 72), given["pose_cam"])
    else:
        np.testing.assert_allclose(rows.pose[:, 1:22], given["smplx"].item()["body_pose"])
        np.testing.assert_allclose(rows.side, 400)
