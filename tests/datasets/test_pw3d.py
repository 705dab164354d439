import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.datasets.pw3d.reader import Pw3d, Pw3dParams
from pose_rft.errors import PoseRftError
from pose_rft.io.unpickle import read_pickle
from pose_rft.sample import python2_pickle, write_pw3d
from pose_rft.sample.plan import Pw3dSample, SampleParams
from tests.support.flat_studio import FlatStudio, shown
from tests.support.release_truth import body_angle, joint_error, read_all

PARAMS = SampleParams.model_construct(pw3d=Pw3dSample(size=64, sequences=3, frames=3, hard_frames=3))
FIRST = "downtown_walking_00"


def reader(root: Path, body_models: Path) -> Pw3d:
    return Pw3d(root, Pw3dParams(splits=("train", "validation", "test")), body_models, 92)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, body_models: Path) -> tuple[Path, FlatStudio]:
    root, studio = tmp_path_factory.mktemp("releases"), FlatStudio(body_models)
    for task in write_pw3d.tasks(PARAMS, 0):
        write_pw3d.render(task, PARAMS, 0, studio, root)
    return root, studio


@pytest.fixture
def own(miniature, body_models, tmp_path: Path) -> Pw3d:
    """A release that the test may damage."""
    shutil.copytree(miniature[0] / "3dpw", tmp_path / "3dpw")
    return reader(tmp_path, body_models)


def edit(release: Pw3d, **changes) -> None:
    """Rewrites fields of the first test sequence."""
    path = release.root / f"sequenceFiles/test/{FIRST}.pkl"
    python2_pickle.dump(read_pickle(path) | changes, path)


def test_records_equal_the_people_who_were_placed(miniature, body_models: Path) -> None:
    release, studio = reader(miniature[0], body_models), miniature[1]
    for split, people in (("train", 1), ("validation", 1), ("test", 4)):
        records, defects = read_all(release, split)
        assert not defects and len(records) == people * 3
        for record in records:
            person = studio.people[shown(record) + int(record.subject[-1])]  # the picture shows the first one's number
            assert body_angle(record, person) < 1e-4
            assert record.smpl.gender == person.identity.gender in ("male", "female")
            assert joint_error(record, body_models) < 0.1
            root = record.camera.R.T @ Rotation.from_rotvec(record.smpl.global_orient).as_matrix()
            np.testing.assert_allclose(root, person.rotations[0], atol=1e-5)
            world = (record.joints3d.points[:, :3] - record.camera.t) @ record.camera.R
            np.testing.assert_allclose(world, person.joints, atol=1e-4)


def test_people_of_one_picture_share_it_and_have_keys_of_their_own(miniature, body_models: Path) -> None:
    records, _ = read_all(reader(miniature[0], body_models), "test")
    two = [record for record in records if record.sequence == "office_phoneCall_02"]
    assert [record.key[-8:] for record in two[:2]] == ["0_000000", "1_000000"]
    assert two[0].image.data == two[1].image.data and two[0].image.width > two[0].image.height
    assert {record.smpl.gender for record in two} == {"male", "female"}


def test_frames_without_a_valid_camera_or_2d_joints_are_not_part_of_the_set(own: Pw3d) -> None:
    content = read_pickle(own.root / f"sequenceFiles/test/{FIRST}.pkl")
    assert len(content["poses"][0]) == 5 and content["campose_valid"][0].tolist() == [1, 1, 1, 0, 1]
    assert not content["poses2d"][0][4].any()
    poses2d = content["poses2d"][0].copy()
    poses2d[1] = 0
    edit(own, poses2d=[poses2d])
    records, defects = read_all(own, "test")
    assert [r.frame for r in records if r.sequence == FIRST] == [0, 2] and not defects


def test_a_person_without_2d_joints_does_not_take_the_other_one_along(own: Pw3d) -> None:
    path = own.root / "sequenceFiles/test/office_phoneCall_02.pkl"
    content = read_pickle(path)
    poses2d = [array.copy() for array in content["poses2d"]]
    poses2d[0][1] = 0
    python2_pickle.dump(content | {"poses2d": poses2d}, path)
    records = [r for r in read_all(own, "test")[0] if r.sequence == "office_phoneCall_02"]
    assert [(r.frame, r.subject[-1]) for r in records] == [(0, "0"), (0, "1"), (1, "1"), (2, "0"), (2, "1")]


def test_pictures_after_the_last_pose_are_left_alone(own: Pw3d) -> None:
    before, _ = read_all(own, "test")
    folder = own.root / "imageFiles" / FIRST
    for i in (5, 6, 7):
        shutil.copy(folder / "image_00000.jpg", folder / f"image_{i:05d}.jpg")
    assert read_all(own, "test") == (before, [])


def test_betas_may_be_more_than_ten_and_have_an_axis_too_many(own: Pw3d) -> None:
    before, _ = read_all(own, "test")
    betas = read_pickle(own.root / f"sequenceFiles/test/{FIRST}.pkl")["betas"]
    edit(own, betas=[np.concatenate([betas[0], np.ones(6)])[None]])
    assert read_all(own, "test")[0] == before


def test_the_box_encloses_the_joints_that_were_found(miniature, body_models: Path) -> None:
    for record in read_all(reader(miniature[0], body_models), "test")[0]:
        found = record.joints2d.points[record.joints2d.points[:, 2] > 0, :2]
        assert record.box.convention == "poses2d x1.2"
        assert record.box.side == pytest.approx(1.2 * np.ptp(found, axis=0).max(), abs=0.01)
        assert (np.abs(found - record.box.center) <= record.box.side / 2).all()


def test_pose_i_belongs_to_picture_i_not_to_img_frame_ids(miniature, body_models: Path) -> None:
    content = read_pickle(miniature[0] / f"3dpw/sequenceFiles/test/{FIRST}.pkl")
    assert content["img_frame_ids"].tolist() != list(range(5))
    records, _ = read_all(reader(miniature[0], body_models), "test")
    numbers = [shown(record) for record in records if record.sequence == FIRST]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]


def test_the_files_are_python_2_pickles(miniature) -> None:
    data = (miniature[0] / f"3dpw/sequenceFiles/test/{FIRST}.pkl").read_bytes()
    with pytest.raises((UnicodeDecodeError, ModuleNotFoundError)):
        pickle.loads(data)
    assert b"numpy.core.multiarray" in data and data[:2] == b"\x80\x02"


def test_both_names_of_the_validation_folder_are_accepted(own: Pw3d) -> None:
    before, _ = read_all(own, "validation")
    (own.root / "sequenceFiles/validation").rename(own.root / "sequenceFiles/val")
    assert read_all(own, "validation")[0] == before
    assert any(path.parent.name == "val" for path in own.inventory())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "missing image"),
        (lambda path: path.write_bytes(b""), "empty image"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "damaged image"),
    ],
)
def test_a_bad_picture_is_a_defect_of_each_person_in_it(own: Pw3d, damage, reason: str) -> None:
    damage(own.root / "imageFiles/office_phoneCall_02/image_00001.jpg")
    records, defects = read_all(own, "test")
    assert [(d.row, d.reason) for d in defects] == [("1 person 0", reason), ("1 person 1", reason)]
    assert len(records) == 10


def test_what_is_wrong_is_named(own: Pw3d, body_models: Path, tmp_path: Path) -> None:
    edit(own, poses=[np.zeros((4, 72))])
    with pytest.raises(PoseRftError, match=f"{FIRST}.pkl is not a sequence of 3DPW"):
        own.units("test")
    path = own.root / f"sequenceFiles/test/{FIRST}.pkl"
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(PoseRftError, match=r"posix\.system"):
        own.units("test")
    path.unlink()
    assert len(own.units("test")) == 2
    shutil.rmtree(own.root / "sequenceFiles/train")
    with pytest.raises(PoseRftError, match="train does not exist"):
        own.units("train")


def test_the_gendered_models_are_needed(miniature, tiny_folder: Path) -> None:
    with pytest.raises(PoseRftError, match="no male SMPL model"):
        read_all(reader(miniature[0], tiny_folder), "test")


@pytest.mark.parametrize("field", ["poses", "trans", "jointPositions", "cam_poses"])
def test_one_number_that_is_not_finite_is_a_defect_of_its_person_and_frame(own: Pw3d, field: str) -> None:  # C2
    content = read_pickle(own.root / f"sequenceFiles/test/{FIRST}.pkl")
    before, _ = read_all(own, "test")
    values = [np.array(v, float) for v in content[field]] if field != "cam_poses" else np.array(content[field], float)
    people = [0] if field != "cam_poses" else range(len(content["poses"]))
    (values[0][1] if field != "cam_poses" else values[1]).flat[0] = np.nan
    edit(own, **{field: values})
    records, defects = read_all(own, "test")
    assert len(records) == len(before) - len(defects)
    assert sorted(defect.row for defect in defects) == [f"1 person {person}" for person in people]
    for defect, person in zip(sorted(defects, key=lambda d: d.row), people, strict=True):
        assert defect.reason == "broken fit" and f"{FIRST}.pkl, person {person}, frame 1: " in defect.detail


def test_what_macos_leaves_beside_a_sequence_is_no_sequence(own: Pw3d) -> None:  # C8
    before, _ = read_all(own, "test")
    (own.root / f"sequenceFiles/test/._{FIRST}.pkl").write_bytes(b"\0\5\26\7macOS")
    assert [record.key for record in read_all(own, "test")[0]] == [record.key for record in before]
