import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose_rft.datasets.mpi_inf_3dhp.files import CHEST_CAMERAS, read_annotations, read_calibration
from pose_rft.datasets.mpi_inf_3dhp.reader import FRAMES, MpiInf3dhp, MpiInf3dhpParams, sampled_frames
from pose_rft.datasets.registry import facts
from pose_rft.errors import PoseRftError
from pose_rft.io import video
from pose_rft.sample import write_3dhp
from pose_rft.sample.matlab_files import write_v5, write_v73
from pose_rft.sample.plan import SampleParams, VideoSample
from tests.support.flat_studio import FlatStudio, numbered, shown
from tests.support.release_truth import body_angle, read_all, reprojection_error

PARAMS = SampleParams.model_construct(
    mpi_inf_3dhp=VideoSample(size=64, train_sequences=1, test_sequences=0, frames=2, test_frames=1)
)


def reader(root: Path, body_models: Path, **params) -> MpiInf3dhp:
    fits = [{"source": "neuralannot", "path": write_3dhp.FITS}]
    return MpiInf3dhp(root, MpiInf3dhpParams(**{"fits": fits, **params}), body_models, 92)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, body_models: Path) -> tuple[Path, FlatStudio]:
    root, studio = tmp_path_factory.mktemp("releases"), FlatStudio(body_models)
    tasks = write_3dhp.tasks(PARAMS, 0)
    assert len(tasks) == 8
    results = [write_3dhp.render(task, PARAMS, 0, studio, root) for task in tasks[:2]]
    write_3dhp.finish(PARAMS, 0, results, root)
    return root, studio


@pytest.fixture
def own(miniature, body_models, tmp_path: Path) -> MpiInf3dhp:
    """A release that the test may damage."""
    shutil.copytree(miniature[0] / "mpi_inf_3dhp", tmp_path / "mpi_inf_3dhp")
    return reader(tmp_path, body_models)


def test_published_lengths_sum_to_the_published_total() -> None:
    counts = {
        (count.split, count.what): count.count for count in facts("mpi_inf_3dhp").counts(MpiInf3dhpParams(every=1))
    }
    assert sum(FRAMES.values()) == 131_592
    assert sum(FRAMES.values()) * len(CHEST_CAMERAS) == 1_052_736 == counts["train", "samples"]


def test_records_equal_the_people_who_were_placed(miniature, body_models: Path) -> None:
    release, studio = reader(miniature[0], body_models), miniature[1]
    records, defects = read_all(release, "train")
    assert not defects and 28 <= len(records) <= 2 * 8 * 2  # who leaves the picture is no sample
    assert {int(record.camera_id) for record in records} == set(CHEST_CAMERAS)
    for record in records:
        person = studio.of_picture(record)
        assert body_angle(record, person) < 1e-3
        assert reprojection_error(record) < 0.01
        world = (record.joints3d.points[:, :3] - record.camera.t) @ record.camera.R
        expected = studio.body("neutral").keypoints(person.vertices, person.joints, "mpi28")
        assert np.abs(world - expected).max() < 1e-4
        # SMPL in the camera frame: joint 0 = rest pelvis + translation
        rest = studio.body("neutral").rest_joints(person.identity.betas)[0]
        pelvis = (rest + record.smpl.transl - record.camera.t) @ record.camera.R
        assert np.abs(pelvis - person.joints[0]).max() < 1e-4
        assert record.smpl.source == "neuralannot" and record.frame % 10 == 0


def test_video_frame_i_belongs_to_annotation_i(own: MpiInf3dhp, body_models: Path) -> None:
    path = own.root / "S1/Seq1/imageSequence/video_4.avi"
    video.encode(path, [numbered(i, (64, 64)) for i in range(20)], 25, "xvid")
    for every in (1, 3):
        release = reader(own.root.parent, body_models, every=every)
        (unit,) = [unit for unit in release.units("train") if unit.key == "3dhp_S1_Seq1_cam4"]
        records = list(release.read(unit, "train"))
        assert [shown(record) for record in records] == [record.frame for record in records]
        assert len(records) == unit.expected >= 20 / every - 1


def test_frames_with_a_joint_outside_are_not_counted() -> None:
    points = np.full((30, 28, 2), 5.0)
    points[3:8, 10] = -1.0  # the left elbow
    points[12, 12] = 99.0  # a hand, which is none of the 17
    points[20, 6] = 64.0
    assert sampled_frames(points, (64, 64), 5) == (0, 10, 15, 21, 26)


def test_annotations_longer_than_the_video_are_cut_at_the_published_length(own: MpiInf3dhp, monkeypatch) -> None:
    expected = {unit.key: unit.expected for unit in own.units("train")}
    monkeypatch.setitem(FRAMES, (1, 1), 10)  # type: ignore[arg-type]
    cut = {unit.key: unit.expected for unit in own.units("train")}
    assert cut["3dhp_S1_Seq1_cam0"] == 1 < expected["3dhp_S1_Seq1_cam0"]
    assert cut["3dhp_S2_Seq1_cam0"] == expected["3dhp_S2_Seq1_cam0"]


@pytest.mark.parametrize(
    ("damage", "reason", "good"),
    [
        (lambda path: path.unlink(), "missing video", 0),
        (lambda path: path.write_bytes(b""), "damaged video", 0),
        (lambda path: video.encode(path, [numbered(0, (64, 64))] * 4, 25, "xvid"), "short video", 1),
        (lambda path: video.encode(path, [numbered(0, (32, 64))] * 20, 25, "xvid"), "image size", 0),
    ],
)
def test_a_bad_video_gives_one_defect_for_each_sample(own: MpiInf3dhp, damage, reason: str, good: int) -> None:
    damage(own.root / "S1/Seq1/imageSequence/video_0.avi")
    _, defects = read_all(own, "train")
    assert {(d.unit, d.reason) for d in defects} == {("3dhp_S1_Seq1_cam0", reason)}
    assert len(defects) == 2 - good


LAYOUTS = (
    "S1/Seq1/imageFrames/video_4/frame_{:06d}.jpg",
    "S1/Seq1/imageFrames/video_4/{:06d}.jpg",
    "images/S1_Seq1_Cam4_{:06d}.jpg",
    "S1_Seq1_Cam4_{:06d}.jpg",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extracted_frames_stand_in_for_the_video_with_their_own_bytes(own: MpiInf3dhp, layout: str) -> None:
    (own.root / "S1/Seq1/imageSequence/video_4.avi").unlink()
    for i in range(20):
        path = own.root / layout.format(i + 1)  # counted from 1
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", numbered(i, (64, 64)))[1].tobytes())
    (unit,) = [unit for unit in own.units("train") if unit.key == "3dhp_S1_Seq1_cam4"]
    records = list(own.read(unit, "train"))
    assert [shown(r) for r in records] == [r.frame for r in records] and len(records) == unit.expected == 2
    assert records[1].image.data == (own.root / layout.format(records[1].frame + 1)).read_bytes()
    assert len([path for path in own.inventory() if path.suffix == ".jpg"]) == 20
    (own.root / layout.format(records[0].frame + 1)).unlink()
    first, second = own.read(unit, "train")
    assert first.reason == "missing image" and second == records[1]


def test_frames_that_were_counted_from_0_belong_to_the_same_labels(own: MpiInf3dhp) -> None:  # A3
    for layout in LAYOUTS:
        (own.root / "S1/Seq1/imageSequence/video_4.avi").unlink(missing_ok=True)
        (own.root / "S1/Seq1/imageSequence/video_5.avi").unlink(missing_ok=True)
        written = []
        for camera in "45":
            for i in range(20):
                name = layout.replace("video_4", f"video_{camera}").replace("Cam4", f"Cam{camera}")
                path = own.root / name.format(i)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".jpg", numbered(i, (64, 64)))[1].tobytes())
                written.append(path)
        written[0].unlink()  # that of one video may be missing: all were extracted by one tool
        (unit,) = [unit for unit in own.units("train") if unit.key == "3dhp_S1_Seq1_cam4"]
        first, second = own.read(unit, "train")
        assert first.reason == "missing image" and shown(second) == second.frame == 10
        for path in written[1:]:
            path.unlink()


def test_one_label_that_is_not_finite_is_a_defect_of_its_frame(own: MpiInf3dhp, test_set, body_models: Path) -> None:
    path = own.root / write_3dhp.FITS  # C2
    content = json.loads(path.read_text())
    content["1"]["1"]["10"]["trans"][1] = float("nan")
    path.write_text(json.dumps(content))
    records, defects = read_all(own, "train")
    assert len(defects) == len(CHEST_CAMERAS) and len(records) == 3 * len(CHEST_CAMERAS)
    for defect in defects:
        assert (defect.row, defect.reason) == ("10", "broken fit")
        assert f"{write_3dhp.FITS}, 1/1, frame 10: a number that is not finite" in defect.detail
    file = test_set[0] / "mpi_inf_3dhp/mpi_inf_3dhp_test_set/TS5/annot_data.mat"
    points3d = test_set[2].copy()
    points3d[2, 3, 1] = np.nan
    points2d = points3d[..., :2] / points3d[..., 2:] * 1683.0
    arrays = {"annot2": points2d, "annot3": points3d, "univ_annot3": points3d}
    matlab = {name: array.transpose(2, 1, 0)[:, :, None] for name, array in arrays.items()}
    write_v73(file, matlab | {"valid_frame": np.array([[0, 1, 1, 0, 0, 1]], np.float64)})
    records, (defect,) = read_all(reader(test_set[0], body_models, splits=("test",), fits=()), "test")
    assert [record.frame for record in records] == [1, 5]
    assert (defect.row, defect.reason) == ("2", "damaged annotation") and "frame 2" in defect.detail


def test_a_video_longer_than_its_annotations_loses_nothing(own: MpiInf3dhp) -> None:
    path = own.root / "S1/Seq1/imageSequence/video_4.avi"
    video.encode(path, [numbered(i, (64, 64)) for i in range(35)], 25, "xvid")
    (unit,) = [unit for unit in own.units("train") if unit.key == "3dhp_S1_Seq1_cam4"]
    records = list(own.read(unit, "train"))
    assert [shown(r) for r in records] == [r.frame for r in records] and len(records) == unit.expected == 2


def test_calibration_variants_read_the_same(own: MpiInf3dhp) -> None:
    path = own.root / "S1/Seq1/camera.calibration"
    before, text = read_calibration(path), path.read_text()
    assert set(before) == set(range(14))
    lines = text.splitlines(keepends=True)
    # What peers cut out by character counts: `line[11:-2]` of numbers, `[14:]` of the size.
    assert len(lines[5][11:-2].split()) == 16 and lines[5].endswith(" \n") and lines[3][14:].split() == ["64", "64"]
    for variant in (text.replace("\n", "\r\n"), text.rstrip("\n"), text.replace("  ", "\t")):
        path.write_bytes(variant.encode())
        after = read_calibration(path)
        for number, camera in before.items():
            assert after[number].size == camera.size
            for name in ("K", "R", "t"):
                np.testing.assert_array_equal(getattr(after[number].camera, name), getattr(camera.camera, name))


def test_what_is_wrong_is_named(own: MpiInf3dhp, body_models: Path) -> None:
    sequence = own.root / "S1/Seq1"
    text = (sequence / "camera.calibration").read_text()
    (sequence / "camera.calibration").write_text(text.replace("name          8", "name          88"))
    with pytest.raises(PoseRftError, match="has no camera 8"):
        own.units("train")
    (sequence / "camera.calibration").write_text(text.replace("intrinsic   ", "intrinsic   1.0 "))
    with pytest.raises(PoseRftError, match=r"not a camera\.calibration file"):
        own.units("train")
    (sequence / "camera.calibration").write_text(text)
    write_v5(sequence / "annot.mat", {"annot2": np.zeros((3, 3))})
    with pytest.raises(PoseRftError, match=r"annot\.mat is not an annotation"):
        own.units("train")
    with pytest.raises(PoseRftError, match="has no TS1"):
        own.units("test")
    with pytest.raises(PoseRftError, match="no split"):
        own.units("val")


def test_annotations_have_the_true_layout(own: MpiInf3dhp) -> None:
    import scipy.io

    content = scipy.io.loadmat(own.root / "S1/Seq1/annot.mat")
    assert content["annot2"].shape == content["annot3"].shape == content["univ_annot3"].shape == (14, 1)
    assert content["annot2"][13][0].shape == (20, 56) and content["annot3"][13][0].shape == (20, 84)
    assert content["cameras"].ravel().tolist() == list(range(14)) and content["frames"].shape == (20, 1)
    points2d, points3d = read_annotations(own.root / "S1/Seq1/annot.mat")
    assert points2d[3].shape == (20, 28, 2) and 0.5 < np.abs(points3d[3]).max() < 10


def test_missing_fits_are_named_and_absent_frames_keep_their_joints(own: MpiInf3dhp) -> None:
    path = own.root / write_3dhp.FITS
    content = json.loads(path.read_text())
    del content["2"]
    path.write_text(json.dumps(content))
    records, defects = read_all(own, "train")
    assert not defects and {record.subject for record in records if record.smpl is None} == {"S2"}
    path.write_text('{"1": 2}')
    with pytest.raises(PoseRftError, match="not a NeuralAnnot SMPL file"):
        read_all(own, "train")
    path.unlink()
    with pytest.raises(PoseRftError, match="SMPL fits"):
        read_all(own, "train")


def test_more_sequences_than_the_release_has_are_refused() -> None:
    sizes = PARAMS.mpi_inf_3dhp.model_copy(update={"train_sequences": 3})
    with pytest.raises(PoseRftError, match="has 2 per subject"):
        write_3dhp.tasks(PARAMS.model_copy(update={"mpi_inf_3dhp": sizes}), 0)


@pytest.fixture
def test_set(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """TS5 with a known camera, six frames of which three are valid."""
    rng = np.random.default_rng(0)
    K = np.array([[1683.0, 0, 950], [0, 1683.0, 520], [0, 0, 1]])
    points3d = rng.normal((0, 0, 4000), 400, (6, 17, 3))
    points2d = (points3d / points3d[..., 2:]) @ K.T
    folder = tmp_path / "mpi_inf_3dhp/mpi_inf_3dhp_test_set/TS5"
    (folder / "imageSequence").mkdir(parents=True)
    for i in range(6):
        _, data = cv2.imencode(".jpg", numbered(i, (1080, 1920)))
        (folder / f"imageSequence/img_{i + 1:06d}.jpg").write_bytes(data.tobytes())
    # MATLAB's shape (axes, joints, 1, N), which h5py shows as (N, 1, 17, axes).
    matlab = [array.transpose(2, 1, 0)[:, :, None] for array in (points2d[..., :2], points3d)]
    valid = np.array([[0, 1, 1, 0, 0, 1]], np.float64)
    write_v73(
        folder / "annot_data.mat",
        {"annot2": matlab[0], "annot3": matlab[1], "univ_annot3": matlab[1] * 0.9, "valid_frame": valid},
    )
    return tmp_path, K, points3d


def test_the_test_set_gives_its_valid_frames(test_set, body_models: Path) -> None:
    root, K, points3d = test_set
    release = reader(root, body_models, splits=("test",), fits=())
    records, defects = read_all(release, "test")
    assert not defects and [record.frame for record in records] == [1, 2, 5] == [shown(r) for r in records]
    for record in records:
        np.testing.assert_allclose(record.camera.K, K, rtol=1e-6)
        np.testing.assert_allclose(record.joints3d.points[:, :3], points3d[record.frame] / 1000, atol=1e-6)
        assert (record.image.width, record.image.height) == (1920, 1080) and reprojection_error(record) < 0.01
    universal, _ = read_all(reader(root, body_models, splits=("test",), fits=(), test_joints3d="univ_annot3"), "test")
    for record, other in zip(records, universal, strict=True):
        np.testing.assert_allclose(other.joints3d.points[:, :3], record.joints3d.points[:, :3] * 0.9, atol=1e-6)
        assert dict(other.provenance)["joints3d"] == "univ_annot3, mm to m"
        np.testing.assert_array_equal(other.camera.K, record.camera.K)
    (root / "mpi_inf_3dhp/mpi_inf_3dhp_test_set/TS5/imageSequence/img_000003.jpg").unlink()
    records, defects = read_all(release, "test")
    assert [record.frame for record in records] == [1, 5] and [d.reason for d in defects] == ["missing image"]
    assert len(release.inventory()) == 6


def test_test_pictures_have_the_size_of_their_sequence(test_set, body_models: Path) -> None:
    root = test_set[0]
    folder = root / "mpi_inf_3dhp/mpi_inf_3dhp_test_set"
    (folder / "TS5").rename(folder / "TS1")  # 2048 x 2048 there
    _, defects = read_all(reader(root, body_models, splits=("test",), fits=()), "test")
    assert [d.reason for d in defects] == ["image size"] * 3
