import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.datasets.emdb.reader import Emdb, EmdbParams
from pose_rft.errors import PoseRftError
from pose_rft.io.unpickle import read_pickle
from pose_rft.sample import write_emdb
from pose_rft.sample.plan import EmdbSample, SampleParams
from tests.support.flat_studio import FlatStudio
from tests.support.release_truth import body_angle, read_all

PARAMS = SampleParams.model_construct(emdb=EmdbSample(size=64, sequences=2, frames=3))
FIRST = "P0/10_outdoor_climb/P0_10_outdoor_climb_data.pkl"


def reader(root: Path, body_models: Path) -> Emdb:
    return Emdb(root, EmdbParams(), body_models, 92)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, body_models: Path) -> tuple[Path, FlatStudio]:
    root, studio = tmp_path_factory.mktemp("releases"), FlatStudio(body_models)
    for task in write_emdb.tasks(PARAMS, 0):
        write_emdb.render(task, PARAMS, 0, studio, root)
    return root, studio


@pytest.fixture
def own(miniature, body_models, tmp_path: Path) -> Emdb:
    """A release that the test may damage."""
    shutil.copytree(miniature[0] / "emdb", tmp_path / "emdb")
    return reader(tmp_path, body_models)


def edit(release: Emdb, change) -> None:
    """Rewrites the first sequence."""
    content = read_pickle(release.root / FIRST)
    change(content)
    (release.root / FIRST).write_bytes(pickle.dumps(content, 4))


def test_nothing_is_rendered_unless_the_sample_asks_for_it() -> None:
    assert write_emdb.tasks(SampleParams.model_construct(), 0) == []


def test_records_equal_the_people_who_were_placed(miniature, body_models: Path) -> None:
    records, defects = read_all(reader(miniature[0], body_models), "test")
    assert not defects and len(records) == 6
    for record in records:
        person = miniature[1].of_picture(record)
        assert body_angle(record, person) < 1e-4
        assert record.smpl.gender == person.identity.gender in ("male", "female")
        root = record.camera.R.T @ Rotation.from_rotvec(record.smpl.global_orient).as_matrix()
        np.testing.assert_allclose(root, person.rotations[0], atol=1e-5)
        rotations = Rotation.from_rotvec(np.concatenate([record.smpl.global_orient[None], record.smpl.body_pose]))
        body = NumpyBody(body_models, record.smpl.gender)
        _, joints = body.vertices(rotations.as_matrix(), record.smpl.betas, record.smpl.transl)
        np.testing.assert_allclose((joints - record.camera.t) @ record.camera.R, person.joints, atol=1e-4)
        projected = joints @ record.camera.K.T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], record.joints2d.points[:, :2], atol=0.05)


def test_the_protocol_takes_emdb_1_and_of_it_the_frames_that_show_the_person(own: Emdb) -> None:
    assert len(list(own.root.glob("P*/*/*_data.pkl"))) == 3, "one of EMDB 2 alone"
    before, _ = read_all(own, "test")
    assert {record.sequence for record in before} == {"P0_10_outdoor_climb", "P1_11_outdoor_hug_tree"}
    assert [record.frame for record in before] == [0, 1, 2, 0, 1, 2], "the last frame is not a good one"
    edit(own, lambda content: content["good_frames_mask"].__setitem__(1, False))
    assert [record.frame for record in read_all(own, "test")[0]] == [0, 2, 0, 1, 2]
    edit(own, lambda content: content.update(emdb1=False))
    assert {record.sequence for record in read_all(own, "test")[0]} == {"P1_11_outdoor_hug_tree"}


def test_the_box_is_the_release_s_or_around_the_joints_where_it_is_empty(own: Emdb) -> None:
    boxes = read_pickle(own.root / FIRST)["bboxes"]["bboxes"]
    edit(own, lambda content: content["bboxes"]["bboxes"].__setitem__(1, 0.0))
    first, second, *_ = read_all(own, "test")[0]
    assert first.box.convention == "bboxes"
    assert first.box.side == pytest.approx(max(boxes[0, 2:] - boxes[0, :2]), abs=0.01)
    assert second.box.convention == "kp2d x1.2"
    assert second.box.side == pytest.approx(1.2 * np.ptp(second.joints2d.points[:, :2], axis=0).max(), abs=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("smpl"),
        lambda content: content["camera"].pop("extrinsics"),
        lambda content: content.update(n_frames=3),
        lambda content: content.update(gender="x"),
        lambda content: content.update(camera=[]),
        lambda content: content["smpl"].update(betas=np.zeros(16)),
        lambda content: content.update(good_frames_mask=None),
    ],
)
def test_a_file_of_another_form_is_one_sentence(own: Emdb, change) -> None:
    edit(own, change)
    with pytest.raises(PoseRftError, match=r"P0_10_outdoor_climb_data\.pkl is not a sequence of EMDB"):
        own.units("test")


def test_code_in_a_pickle_and_a_missing_release_are_refused(own: Emdb, body_models: Path, tmp_path: Path) -> None:
    (own.root / FIRST).write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(PoseRftError, match=r"posix\.system"):
        own.units("test")
    with pytest.raises(PoseRftError, match="holds no P"):
        (tmp_path / "empty" / "emdb").mkdir(parents=True)
        reader(tmp_path / "empty", body_models).units("test")
    with pytest.raises(PoseRftError, match="no split 'train'"):
        own.units("train")


@pytest.mark.parametrize("field", ["poses_root", "poses_body", "trans"])
def test_one_number_that_is_not_finite_is_a_defect_of_its_frame(own: Emdb, field: str) -> None:  # C2
    edit(own, lambda content: content["smpl"][field].__setitem__((1, 0), np.nan))
    records, defects = read_all(own, "test")
    assert [(defect.row, defect.reason) for defect in defects] == [("1", "broken fit")] and len(records) == 5


def test_a_missing_picture_is_a_defect(own: Emdb) -> None:
    (own.root / FIRST).parent.joinpath("images/00001.jpg").unlink()
    assert [(d.row, d.reason) for d in read_all(own, "test")[1]] == [("1", "missing image")]
