import io
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import project
from pose_rft.body.joints import SMPLX127
from pose_rft.datasets.bedlam.labels import LabelFile, read_rows
from pose_rft.datasets.bedlam.reader import NOT_PUBLIC, Bedlam, BedlamParams
from pose_rft.errors import PoseRftError
from pose_rft.record import Defect
from pose_rft.sample import write_bedlam
from pose_rft.sample.people import Studio
from pose_rft.sample.plan import PictureSample, SampleParams
from tests.support.release_truth import read_all

PARAMS = SampleParams.model_construct(bedlam=PictureSample(size=64, train=40, val=12), two_people=0.5, varied=0.0)
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


def test_rows_of_a_picture_need_not_lie_together(own: Path, reader) -> None:
    before, _ = read_all(reader(own), "train")
    for folder, _, _ in write_bedlam.TRAIN:
        content = labels(own, folder)
        order = np.random.default_rng(0).permutation(len(content["scale"]))
        rewrite(own, folder, **{name: column[order] for name, column in content.items() if name != "motion_info"})
    after, defects = read_all(reader(own), "train")
    assert not defects

    def people(records) -> list:
        return sorted((r.sequence, r.frame, r.subject, r.box.center, r.smpl.body_pose.tobytes()) for r in records)

    assert people(after) == people(before)
    assert len(reader(own).units("train")) == 40


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
    assert "motion_info" not in read_rows(LabelFile.at(path))


def label_file(root: Path, folder: str) -> Path:
    return root / "bedlam" / "training_labels" / "all_npz_12_training" / f"{folder}.npz"


def rewrite(root: Path, folder: str, **columns) -> None:
    content = {name: column for name, column in labels(root, folder).items() if name != "motion_info"}
    np.savez(label_file(root, folder), **content | columns)


@pytest.mark.parametrize("folder", NOT_PUBLIC)
def test_scenes_without_public_pictures_are_no_error_but_counted(own: Path, reader, folder: str) -> None:
    release = reader(own, val_folders=())  # all label files are training's
    sound = {folder for folder, _, _ in (*write_bedlam.TRAIN, *write_bedlam.VAL)} - {folder}
    if folder not in sound:
        shutil.copy(label_file(own, write_bedlam.TRAIN[0][0]), label_file(own, folder))
    shutil.rmtree(own / "bedlam" / "training_images" / folder, ignore_errors=True)
    records, (defect,) = read_all(release, "train")
    assert {r.sequence.rsplit("_", 1)[0] for r in records} == {name.replace("_", "-") for name in sound}
    assert defect.reason == "scene without public pictures" and folder in defect.detail


def test_agoras_labels_beside_bedlams_are_counted(own: Path, reader) -> None:
    """all_npz_12_training holds agora-bfh.npz and agora-body.npz, whose columns differ."""
    np.savez(label_file(own, "agora-bfh"), imgname=np.array(["ag_trainset_0.png"]))
    _, defects = read_all(reader(own), "train")
    assert [(defect.reason, defect.detail) for defect in defects] == [("labels of another data set", "agora-bfh.npz")]


def test_a_public_scene_without_its_pictures_stops_with_the_archives_name(own: Path, reader) -> None:
    folder = write_bedlam.TRAIN[0][0]
    shutil.rmtree(own / "bedlam" / "training_images" / folder)
    with pytest.raises(PoseRftError, match=rf"unpack bedlam_images_train/{folder}\.tar"):
        reader(own).units("train")


def test_validation_without_any_pictures_says_what_to_do(own: Path, reader) -> None:
    for folder, _, _ in write_bedlam.VAL:
        shutil.rmtree(own / "bedlam" / "training_images" / folder)
    with pytest.raises(PoseRftError, match="take val out of"):
        reader(own).units("val")


def test_a_label_file_whose_name_has_3_10_for_3_dash_10_finds_its_pictures(own: Path, reader) -> None:
    folder = next(folder for folder, _, _ in write_bedlam.TRAIN if "_3-10_" in folder)
    before, _ = read_all(reader(own), "train")
    label_file(own, folder).rename(label_file(own, folder.replace("3-10", "3_10")))
    after, defects = read_all(reader(own), "train")
    assert len(after) == len(before) and not defects


def test_both_frame_rates_keep_their_frame_numbers(own: Path, reader) -> None:
    """6 fps scenes count by five, the three hair scenes (30 fps) one by one."""
    folder, hair = write_bedlam.TRAIN[2][0], "20221022_3_250_batch01handhair_static_bigOffice_30fps"
    images = own / "bedlam" / "training_images"
    names = labels(own, folder)["imgname"]

    def every(name: str) -> str:
        return name[:-8] + f"{int(name[-8:-4]) // 5:04d}.png"

    for path in sorted((images / folder).rglob("*.png")):
        path.rename(path.with_name(every(path.name)))
    (images / folder).rename(images / hair)
    rewrite(own, folder, imgname=np.array([every(name) for name in names]))
    label_file(own, folder).rename(label_file(own, hair))
    records, defects = read_all(reader(own), "train")
    frames = {r.frame for r in records if "30fps" in r.sequence}
    assert frames == {0, 1, 2, 3} and not defects
    assert {r.frame for r in records if "6fps" in r.sequence} == {0, 5, 10, 15}


def test_rotation_follows_the_intrinsics_and_not_the_folders_name(own: Path, reader) -> None:
    """A folder called close-up whose pictures are labelled as they are stored (`staticzoomed-suburba-frameocc`)."""
    folder = write_bedlam.TRAIN[0][0]
    other = "20221017_1_250_batch01hand_closeup_suburb_a_6fps"
    (own / "bedlam" / "training_images" / folder).rename(own / "bedlam" / "training_images" / other)
    label_file(own, folder).rename(label_file(own, other))
    records = [r for r in read_all(reader(own), "train")[0] if r.sequence.startswith(other.replace("_", "-"))]
    assert records and all(r.image.width > r.image.height and "image" not in dict(r.provenance) for r in records)


@pytest.mark.parametrize("column", ["pose_cam", "gtkps", "cam_int", "cam_ext", "trans_cam", "center", "scale"])
def test_a_number_that_is_not_finite_costs_its_row_only(own: Path, reader, column: str) -> None:
    folder = write_bedlam.VAL[0][0]
    content = labels(own, folder)[column].copy()
    content[1] = np.nan
    rewrite(own, folder, **{column: content})
    for params in ({}, {"poses": {"val": 4}}, {"smallest_box": 20.0, "joints_inside": 16}):
        _, defects = read_all(reader(own, captions=2, **params), "val")
        assert [(defect.reason, defect.row) for defect in defects] == [("broken row", "1")]


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("pose_cam", lambda a: a[:, :66]),
        ("gtkps", lambda a: a[:, :24]),
        ("cam_ext", lambda a: a[:, :3]),
        ("imgname", lambda a: np.arange(len(a))),
        ("scale", lambda a: a.astype(str)),
        ("center", lambda a: a[:1]),
    ],
)
def test_columns_of_other_shapes_are_one_sentence(own: Path, reader, column: str, content) -> None:
    folder = write_bedlam.TRAIN[0][0]
    rewrite(own, folder, **{column: content(labels(own, folder)[column])})
    with pytest.raises(PoseRftError, match=r"has rows of shape|of different length"):
        reader(own).units("train")


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/seq_000000_0000.png", "seq_000000/seq_000000_00a0.png"])
def test_a_picture_name_that_is_none_stops(own: Path, reader, name: str) -> None:
    folder = write_bedlam.TRAIN[0][0]
    names = labels(own, folder)["imgname"].astype("U64")
    names[0] = name
    rewrite(own, folder, imgname=names)
    with pytest.raises(PoseRftError, match=r"row 0: .* is no picture"):
        reader(own).units("train")


def test_the_poses_kept_differ_more_than_those_of_a_random_draw(written: Path, reader) -> None:
    def spread(records) -> float:
        poses = np.stack([Rotation.from_rotvec(r.smpl.body_pose).as_matrix().ravel() for r in records])
        apart = np.linalg.norm(poses[:, None] - poses[None], axis=-1)
        return float(np.sort(apart, axis=1)[:, 1].mean())  # to the nearest other

    everybody, _ = read_all(reader(written), "train")
    kept, _ = read_all(reader(written, poses={"train": 12}), "train")
    draws = [np.random.default_rng(i).choice(len(everybody), 12, replace=False) for i in range(10)]
    assert len(kept) == 12 and {r.key for r in kept} <= {r.key for r in everybody}
    assert spread(kept) > np.mean([spread([everybody[i] for i in draw]) for draw in draws])
    assert len(read_all(reader(written, poses={"train": 12}), "val")[0]) > 12  # the other split keeps all


def test_captions_of_a_person_stay_whoever_else_is_kept(written: Path, reader) -> None:
    everybody = {r.key: r for r in read_all(reader(written, captions=3), "train")[0]}
    for record in read_all(reader(written, captions=3, poses={"train": 9}), "train")[0]:
        assert record == everybody[record.key] and len(record.captions) == 3
