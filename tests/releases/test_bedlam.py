import io
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from release_truth import read_all
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import SMPLX127
from pose_rft.errors import PoseRftError
from pose_rft.record import Defect
from pose_rft.releases.bedlam import Bedlam, BedlamParams, read_rows
from pose_rft.releases.cameras import project
from pose_rft.sample import write_bedlam
from pose_rft.sample.people import Studio
from pose_rft.sample.plan import PictureSample, SampleParams

PARAMS = SampleParams.model_construct(bedlam=PictureSample(size=64, train=40, val=12), two_people=0.5)
CLOSEUP = write_bedlam.TRAIN[1][0]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, standin_folder: Path) -> Path:
    root, studio = tmp_path_factory.mktemp("releases"), Studio(standin_folder)
    write_bedlam.FRAMES, frames = 4, write_bedlam.FRAMES
    results = [write_bedlam.render(task, PARAMS, 0, studio, root) for task in write_bedlam.tasks(PARAMS, 0)]
    write_bedlam.finish(PARAMS, 0, results, root)
    write_bedlam.FRAMES = frames
    return root


@pytest.fixture
def own(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "releases")
    read_rows.cache_clear()
    return tmp_path / "releases"


@pytest.fixture
def reader(standin_folder: Path):
    def open_at(root: Path, **params) -> Bedlam:
        values = {"smallest_box": 0.0, "largest_overlap": 1.0, "joints_inside": 0, "captions": 1, **params}
        return Bedlam(root, BedlamParams(**values), standin_folder, 92)

    return open_at


def labels(root: Path, folder: str) -> dict[str, np.ndarray]:
    path = root / "bedlam" / "training_labels" / "all_npz_12_training" / f"{folder}.npz"
    with np.load(path, allow_pickle=True) as content:
        return dict(content)


def test_every_row_comes_back_with_its_body(written: Path, reader) -> None:
    for split, folders in (("train", write_bedlam.TRAIN), ("val", write_bedlam.VAL)):
        records, defects = read_all(reader(written), split)
        assert not defects
        assert len(records) == sum(len(labels(written, folder)["scale"]) for folder, _, _ in folders)
        for record in records:
            assert record.smpl.valid.tolist() == [True] * 22 + [False] * 2
            assert "betas_unknown" in record.flags and not record.smpl.betas.any()


def test_people_project_onto_their_keypoints(written: Path, reader) -> None:
    """The camera-frame body, moved by trans_cam + cam_ext, lands on gtkps (its shape does not carry over)."""
    from pose_rft.body.lbs_numpy import NumpyBody

    release = reader(written)
    body = NumpyBody(release.body_model)
    for record in read_all(release, "train")[0][::3]:
        smpl = record.smpl
        rotations = Rotation.from_rotvec(np.concatenate([smpl.global_orient[None], smpl.body_pose])).as_matrix()
        found = project(body.joints(rotations, None, smpl.transl)[:22], record.camera)
        distance = np.linalg.norm(found - record.joints2d.points[:22, :2], axis=1)
        assert record.joints2d.joint_set == SMPLX127.name
        assert np.median(distance) < 0.04 * record.box.side


def test_closeups_are_turned_to_the_portrait_of_their_labels(written: Path, reader) -> None:
    stored = next((written / "bedlam" / "training_images" / CLOSEUP).rglob("*.png"))
    with PIL.Image.open(stored) as picture:
        assert picture.width > picture.height
    for record in read_all(reader(written), "train")[0]:
        turned = record.sequence.startswith(CLOSEUP.replace("_", "-"))
        assert (record.image.height > record.image.width) == turned
        assert record.camera.K[0, 2] == pytest.approx(record.image.width / 2)
        if turned:
            name = f"{record.sequence.rsplit('_', 1)[1].replace('-', '_')}_{record.frame:04d}.png"
            path = stored.parents[1] / name.rsplit("_", 1)[0] / name
            pixels = np.asarray(PIL.Image.open(io.BytesIO(record.image.data)))
            np.testing.assert_array_equal(np.rot90(pixels), np.asarray(PIL.Image.open(path)))


def test_landscape_bytes_pass_through(written: Path, reader) -> None:
    release = reader(written)
    unit = next(unit for unit in release.units("val"))
    folder, name, *_ = unit.payload
    stored = written / "bedlam" / "training_images" / folder / "png" / name
    assert all(record.image.data == stored.read_bytes() for record in release.read(unit, "val"))


def test_all_people_of_a_picture_are_one_unit(written: Path, reader) -> None:
    units = reader(written).units("train")
    assert len(units) == 40 and max(unit.expected for unit in units) == 2


def test_captions_do_not_depend_on_what_else_is_read(written: Path, reader) -> None:
    release = reader(written, captions=3)
    unit = release.units("train")[5]
    captions = next(iter(release.read(unit, "train"))).captions
    assert len(captions) == 3 and all(c.kind == "automatic" and len(c.text) > 20 for c in captions)
    list(release.read(release.units("train")[0], "train"))
    assert next(iter(release.read(unit, "train"))).captions == captions


def test_small_and_hidden_people_are_not_described(written: Path, reader) -> None:
    everybody = sum(unit.expected for unit in reader(written).units("train"))
    large = sum(unit.expected for unit in reader(written, smallest_box=45.0).units("train"))
    unhidden = sum(unit.expected for unit in reader(written, largest_overlap=0.0).units("train"))
    some = sum(unit.expected for unit in reader(written, poses={"train": 9}).units("train"))
    assert 0 < large < everybody and unhidden < everybody and some == 9


def test_the_smpl_version_of_the_labels_keeps_its_shape(own: Path, reader) -> None:
    folder = write_bedlam.VAL[0][0]
    content = labels(own, folder)
    pose = np.zeros((len(content["scale"]), 72))
    pose[:, :66] = content["pose_cam"][:, :66]
    content |= {"pose_cam": pose, "shape": content["shape"][:, :10], "gtkps": content["gtkps"][:, :45]}
    np.savez(own / "bedlam" / "training_labels" / "all_npz_12_training" / f"{folder}.npz", **content)
    records = [r for r in read_all(reader(own), "val")[0] if r.sequence.startswith(folder.replace("_", "-"))]
    assert records and all(r.smpl.body_model == "smpl" and r.smpl.betas.any() and not r.flags for r in records)


def test_corrupt_pictures_and_rows_are_defects(own: Path, reader) -> None:
    release = reader(own)
    first, second = release.units("val")[:2]
    (own / "bedlam" / "training_images" / first.payload[0] / "png" / first.payload[1]).write_bytes(b"")
    content = labels(own, second.payload[0])
    content["pose_cam"][second.payload[2][0].row, 4] = np.nan
    np.savez(own / "bedlam" / "training_labels" / "all_npz_12_training" / f"{second.payload[0]}.npz", **content)
    read_rows.cache_clear()
    assert [row.reason for row in release.read(first, "val")] == ["empty image"] * first.expected
    rows = list(release.read(second, "val"))
    assert len(rows) == second.expected and isinstance(rows[0], Defect) and rows[0].reason == "broken row"


def test_a_label_file_without_a_column_is_one_sentence(own: Path, reader) -> None:
    folder = write_bedlam.TRAIN[0][0]
    path = own / "bedlam" / "training_labels" / "all_npz_12_training" / f"{folder}.npz"
    content = labels(own, folder)
    del content["cam_ext"]
    np.savez(path, **content)
    with pytest.raises(PoseRftError, match="lacks cam_ext"):
        reader(own).units("train")
    path.write_bytes(b"PK")
    with pytest.raises(PoseRftError, match="not a readable \\.npz"):
        reader(own).units("train")


def test_the_object_column_is_never_unpickled(written: Path) -> None:
    path = written / "bedlam" / "training_labels" / "all_npz_12_training" / f"{write_bedlam.TRAIN[0][0]}.npz"
    with np.load(path, allow_pickle=False) as content:
        assert "motion_info" in content
        with pytest.raises(ValueError, match="pickle"):
            _ = content["motion_info"]
    assert "motion_info" not in read_rows(path)
