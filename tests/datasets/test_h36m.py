import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from pose_rft.body.cameras import project
from pose_rft.body.joints import H36M17, H36M32
from pose_rft.datasets.h36m.metadata import CAMERAS, read_metadata
from pose_rft.datasets.h36m.reader import DRIFTED, H36m, H36mParams, planned_videos
from pose_rft.datasets.registry import facts
from pose_rft.errors import PoseRftError
from pose_rft.io import video
from pose_rft.io.cdf import read_variable
from pose_rft.sample import imperfect_fits, write_h36m
from pose_rft.sample.h36m_files import sequence_name, write_mask_boxes, write_metadata, write_poses
from pose_rft.sample.plan import SampleParams, VideoSample
from tests.support.beside import beside
from tests.support.flat_studio import FlatStudio, numbered, shown
from tests.support.release_truth import body_angle, joint_error, read_all, reprojection_error

REAL = beside("real/h36m/metadata.xml")
PARAMS = SampleParams.model_construct(
    h36m=VideoSample(size=64, train_sequences=1, test_sequences=2, frames=2, test_frames=3)
)
FITS = "Human36M_subject{subject}_SMPL_NeuralAnnot.json"
NEURALANNOT = {"source": "neuralannot", "path": FITS}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, body_models: Path) -> tuple[Path, FlatStudio]:
    """With fits that are the people who were placed, so that a wrong frame or offset shows."""
    root, studio = tmp_path_factory.mktemp("releases"), FlatStudio(body_models)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SUBJECT_TURN", "FRAME_TURN", "SUBJECT_BETA", "FRAME_SHIFT"):
            patch.setattr(imperfect_fits, name, 0.0)
        results = [write_h36m.render(task, PARAMS, 0, studio, root) for task in write_h36m.tasks(PARAMS, 0)]
    write_h36m.finish(PARAMS, 0, results, root)
    return root, studio


def reader(root: Path, body_models: Path, **params) -> H36m:
    return H36m(root, H36mParams(**{"fits": [NEURALANNOT], "splits": ("train", "p1", "p2"), **params}), body_models, 92)


@pytest.fixture
def release(miniature, body_models) -> H36m:
    return reader(miniature[0], body_models)


@pytest.fixture
def own(miniature, body_models, tmp_path: Path) -> H36m:
    """A release that the test may damage."""
    shutil.copytree(miniature[0] / "h36m", tmp_path / "h36m")
    return reader(tmp_path, body_models)


needs_real = pytest.mark.skipif(not REAL.exists(), reason="Human3.6M's licence keeps its metadata.xml out of a clone")


@needs_real
def test_the_real_metadata_gives_the_published_counts() -> None:
    metadata = read_metadata(REAL)

    def count(split: str, every: int) -> int:
        videos = planned_videos(metadata, split, every)
        return sum(len(unit.frames) for unit in videos if not unit.is_known_missing)

    def told(split: str, every: int) -> int:
        counts = facts("h36m").counts(H36mParams(every=every))
        return next(known.count for known in counts if (known.split, known.what) == (split, "samples"))

    assert count("train", 1) == told("train", 1) == 1_559_752
    assert count("train", 5) == told("train", 5) == 312_188
    assert count("p1", 1) == told("p1", 1) == 548_819
    assert count("p1", 5) == told("p1", 5) == 109_867
    assert count("p2", 5) == told("p2", 5) == 27_558
    # 3DMPPE's step: all cameras, and the frontal one alone.
    assert sum(len(unit.frames) for unit in planned_videos(metadata, "p1", 64)) == 8_724
    assert count("p2", 64) == 2_181
    assert len(planned_videos(metadata, "train", 1)) + len(planned_videos(metadata, "p1", 1)) == 840


@needs_real
def test_the_real_metadata_gives_the_known_camera_sizes_and_names() -> None:
    metadata = read_metadata(REAL)
    first = metadata.camera(1, 0)
    # The rotation that every copy of the set's cameras has for S1, 54138969.
    np.testing.assert_allclose(first.R[0], [-0.91536173, 0.40180837, 0.02574754], atol=1e-8)
    np.testing.assert_allclose(-first.R.T @ first.t, [1.84110703, 4.95528462, 1.56344540], atol=1e-7)
    assert metadata.sizes[1] == ((1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002))
    assert metadata.sizes[7] == ((1000, 1002),) * 4
    for sequence in metadata.sequences:
        if sequence.subject in (1, 5, 6, 7, 8, 9, 11):
            assert sequence_name(sequence.subject, sequence.action, sequence.subaction) == sequence.name


@needs_real
def test_videos_that_go_on_long_after_their_last_pose_are_flagged() -> None:
    videos = [unit for split in ("train", "p1") for unit in planned_videos(read_metadata(REAL), split, 5)]
    early = {(v.sequence.subject, v.sequence.name) for v in videos if "poses_end_early" in v.flags}
    assert early == DRIFTED | {(9, "Walking"), (9, "Phoning")}
    assert {(v.sequence.subject, v.sequence.name) for v in videos if "annotation_drift" in v.flags} == DRIFTED


def test_records_equal_the_people_who_were_placed(release: H36m, miniature, body_models: Path) -> None:
    studio = miniature[1]
    for split in ("train", "p2"):
        records, defects = read_all(release, split)
        assert not defects and len(records) == (5 * 4 * 2 if split == "train" else 2 * 2 * 3)
        for record in records:
            assert body_angle(record, studio.of_picture(record)) < 1e-3
            assert joint_error(record, body_models) < 0.1
            assert reprojection_error(record) < 0.01
            np.testing.assert_allclose(record.smpl.betas, studio.of_picture(record).identity.betas, atol=1e-5)
            assert record.frame % 5 == 0 and record.smpl.source == "neuralannot"
    assert {record.camera_id for record in records} == {"60457274"}


def test_ignoring_the_lens_would_break_the_labels(release: H36m) -> None:
    records, _ = read_all(release, "train")
    straight = type(records[0].camera)(records[0].camera.K)
    apart = project(records[0].joints3d.points[:, :3], straight) - records[0].joints2d.points[:, :2]
    assert np.abs(apart).max() > 0.02  # at 64 px; 1-2 px of the real 1000


def test_picture_sizes_are_those_of_the_metadata(release: H36m) -> None:
    records, _ = read_all(release, "train")
    sizes = {(r.subject, r.camera_id): (r.image.width, r.image.height) for r in records}
    assert sizes["S1", "54138969"] == (64, 66) and sizes["S1", "55011271"] == (64, 64)
    assert sizes["S7", "55011271"] == (64, 66)


def test_boxes_come_from_masks_and_else_from_joints(release: H36m) -> None:
    records, _ = read_all(release, "p2")
    conventions = {record.subject: record.box.convention for record in records}
    assert conventions == {"S9": "mask x0.9", "S11": "joints2d x1.2"}


def test_silhouettes_give_the_same_boxes_as_box_masks(own: H36m) -> None:
    before, _ = read_all(own, "p2")
    folder = own.root / "S9/MySegmentsMat"
    (folder / "ground_truth_bb").rename(folder / "ground_truth_bs")
    after, _ = read_all(own, "p2")
    assert after == before and any(record.box.convention == "mask x0.9" for record in after)
    assert any(path.parent.name == "ground_truth_bs" for path in own.inventory())


def test_frames_whose_mask_is_empty_take_the_box_of_their_joints(own: H36m) -> None:
    path = own.root / "S9/MySegmentsMat/ground_truth_bb/Greeting.60457274.mat"
    write_mask_boxes(path, [(10, 10, 40, 50)] * 10 + [(0, 0, 0, 0)] * 2, (64, 66))
    records = [r for r in read_all(own, "p2")[0] if (r.subject, r.sequence) == ("S9", "Greeting")]
    assert [r.box.convention for r in records] == ["mask x0.9", "mask x0.9", "joints2d x1.2"]
    assert records[0].box.center == (25.0, 30.0) and records[0].box.side == pytest.approx(0.9 * 40)


def test_the_set_of_drifted_sequences_is_the_published_one() -> None:
    # HybrIK names them by action and subaction: 5/2, 10/2 and 13/1 of S9.
    assert {(9, sequence_name(9, action, sub)) for action, sub in ((5, 2), (10, 2), (13, 1))} == DRIFTED


def test_drifted_sequences_are_flagged_not_dropped(release: H36m) -> None:
    records, _ = read_all(release, "p2")
    flags = {(r.subject, r.sequence): r.flags for r in records}
    assert flags["S9", "Greeting"] == ("annotation_drift",)
    assert flags["S9", "Directions 1"] == () == flags["S11", "Greeting"]


@pytest.fixture
def counting(tmp_path: Path, miniature) -> Path:
    """A release whose every video frame shows its own number and whose poses hold it in metres."""
    root = tmp_path / "h36m"
    lengths = {(s, 2, 1): (23, (25, 25, 25, 25)) for s in (1, 5, 6, 7, 8)} | {(1, 1, 1): (9, (9, 9, 9, 9))}
    real = read_metadata(miniature[0] / "h36m/metadata.xml")
    write_metadata(root / "metadata.xml", lengths, {s: [(64, 48)] * 4 for s in real.sizes}, real.w0)
    poses = np.arange(23.0)[:, None, None] * 1000 + np.ones((23, 32, 3))
    for subject in (1, 5, 6, 7, 8):
        name = sequence_name(subject, 2, 1)
        for camera in CAMERAS:
            folder = root / f"S{subject}"
            pictures = [numbered(i, (48, 64)) for i in range(25)]
            video.encode(folder / "Videos" / f"{name}.{camera}.mp4", pictures, 50, "h264")
            write_poses(folder / "MyPoseFeatures/D3_Positions_mono" / f"{name}.{camera}.cdf", poses)
            write_poses(folder / "MyPoseFeatures/D2_Positions" / f"{name}.{camera}.cdf", poses[..., :2])
    return tmp_path


def test_video_frame_i_belongs_to_pose_i(counting: Path, body_models: Path) -> None:
    for every in (1, 5, 7):
        release = reader(counting, body_models, fits=(), every=every)
        records, defects = read_all(release, "train")
        assert not defects and len(records) == 20 * len(range(0, 23, every))
        for record in records:
            assert shown(record) == record.frame == round(float(record.joints3d.points[0, 0]))


@pytest.mark.parametrize("name", ["_ALL", "_ALL 1", "_ALL 2"])
def test_calibration_sequences_are_skipped(counting: Path, body_models: Path, name: str) -> None:
    path = counting / "h36m/metadata.xml"
    path.write_text(path.read_text().replace("_ALL 1", name))
    units = reader(counting, body_models, fits=()).units("train")
    assert len(units) == 20 and not any("ALL" in unit.key for unit in units)


def test_lower_case_folders_and_the_layout_of_h36m_fetch_read_the_same(own: H36m) -> None:
    before, _ = read_all(own, "p2")
    for subject in (9, 11):
        folder = own.root / f"S{subject}"
        for kind in ("D2_Positions", "D3_Positions_mono"):
            (folder / "MyPoseFeatures" / kind).rename(folder / f"Poses_{kind}")
        folder.rename(own.root / f"s{subject}")
    assert read_all(own, "p2")[0] == before
    assert len([path for path in own.inventory() if path.parent.name == "Poses_D2_Positions"]) == 4


def first_video(release: H36m) -> Path:
    return release.root / "S9/Videos/Greeting.60457274.mp4"


@pytest.mark.parametrize(
    ("damage", "reason", "good"),
    [
        (lambda path: path.unlink(), "missing video", 0),
        (lambda path: path.write_bytes(b""), "damaged video", 0),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "damaged video", 0),
        (lambda path: video.encode(path, [numbered(1, (66, 64))] * 7, 50, "h264"), "short video", 2),
        (lambda path: video.encode(path, [numbered(1, (64, 64))] * 17, 50, "h264"), "image size", 0),
    ],
)
def test_a_bad_video_gives_one_defect_for_each_sample(own: H36m, damage, reason: str, good: int) -> None:
    damage(first_video(own))
    records, defects = read_all(own, "p2")
    assert len(records) == 9 + good and len(defects) == 3 - good
    assert {defect.reason for defect in defects} == {reason}
    assert [defect.row for defect in defects] == ["0", "5", "10"][good:]


@pytest.mark.parametrize("content", [None, b"", b"not a CDF file", b"\xcd\xf3\x00\x01" + bytes(400)])
def test_bad_poses_give_defects(own: H36m, content: bytes | None) -> None:
    path = own.root / "S9/MyPoseFeatures/D3_Positions_mono/Greeting.60457274.cdf"
    path.unlink() if content is None else path.write_bytes(content)
    _, defects = read_all(own, "p2")
    assert len(defects) == 3
    assert {d.reason for d in defects} == {"missing annotation" if content is None else "damaged annotation"}


def test_metadata_is_parsed_once_for_all_videos(own: H36m, monkeypatch) -> None:
    from pose_rft.datasets.h36m import metadata as h36m_metadata

    calls = []
    parse = h36m_metadata._parse
    monkeypatch.setattr(h36m_metadata, "_parse", lambda root: calls.append(1) or parse(root))
    read_all(own, "p2")
    assert len(calls) == 1
    (own.root / "metadata.xml").write_text((own.root / "metadata.xml").read_text() + " ")
    own.units("p2")
    assert len(calls) == 2


def test_poses_longer_than_the_video_are_defects_and_longer_videos_lose_nothing(own: H36m) -> None:
    video.encode(first_video(own), [numbered(i, (66, 64)) for i in range(40)], 50, "h264")
    records, defects = read_all(own, "p2")
    greeting = [r for r in records if (r.subject, r.sequence) == ("S9", "Greeting")]
    assert not defects and [shown(r) for r in greeting] == [0, 5, 10]


def test_fewer_poses_than_promised_are_defects_of_the_last_frames(own: H36m) -> None:
    for kind, axes in (("D3_Positions_mono", 3), ("D2_Positions", 2)):
        path = own.root / "S9/MyPoseFeatures" / kind / "Greeting.60457274.cdf"
        path.unlink()
        write_poses(path, np.ones((9, 32, axes)))
    records, defects = read_all(own, "p2")
    assert len(records) == 11 and [(d.row, d.reason) for d in defects] == [("10", "missing annotation")]


def test_a_damaged_mask_file_costs_no_sample_but_is_flagged(own: H36m) -> None:
    (own.root / "S9/MySegmentsMat/ground_truth_bb/Greeting.60457274.mat").write_bytes(b"MATLAB 7.3 MAT-file" * 40)
    records, defects = read_all(own, "p2")
    flagged = [record for record in records if "damaged_mask" in record.flags]
    assert not defects and len(flagged) == 3
    assert {(r.sequence, r.box.convention) for r in flagged} == {("Greeting", "joints2d x1.2")}


def test_the_video_that_the_release_never_had_is_not_a_defect(counting: Path, body_models: Path) -> None:
    root = counting / "h36m"
    for subject in (9, 11):
        (root / f"S{subject}/Videos").mkdir(parents=True)
    real = read_metadata(root / "metadata.xml")
    write_metadata(root / "metadata.xml", {(11, 2, 2): (20, (20, 20, 20, 20))}, real.sizes, real.w0)
    units = reader(counting, body_models, fits=()).units("p1")
    assert [unit.key.split("_")[-1] for unit in units] == ["55011271", "58860488", "60457274"]
    video.encode(root / "S11/Videos/Directions.54138969.mp4", [numbered(0, (48, 64))] * 20, 50, "h264")
    assert len(reader(counting, body_models, fits=()).units("p1")) == 4


def test_frames_without_a_fit_keep_their_joints(own: H36m) -> None:
    path = own.root / FITS.format(subject=1)
    content = json.loads(path.read_text())
    del content["5"]["2"]["5"]
    path.write_text(json.dumps(content))
    records, defects = read_all(own, "train")
    without = [record for record in records if record.smpl is None]
    assert not defects and {(r.subject, r.frame) for r in without} == {("S1", 5)} and len(without) == 4
    assert all(record.joints3d is not None for record in without)


def test_missing_fits_stop_training_but_not_the_test_set(own: H36m) -> None:
    for path in own.root.glob("*NeuralAnnot.json"):
        path.unlink()
    records, defects = read_all(own, "p2")
    assert not defects and all(record.smpl is None for record in records)
    with pytest.raises(PoseRftError, match="SMPL fits"):
        read_all(own, "train")


def test_what_is_missing_is_named(own: H36m, body_models: Path) -> None:
    with pytest.raises(PoseRftError, match="no split 'val'"):
        own.units("val")
    (own.root / "metadata.xml").write_text("<a><mapping/></a>")
    with pytest.raises(PoseRftError, match=r"not Human3\.6M's metadata"):
        own.units("train")
    (own.root / "metadata.xml").write_text("<a>")
    with pytest.raises(PoseRftError, match="is not XML"):
        own.units("train")


def test_subjects_that_are_not_there_are_defects_unless_others_are_named(own: H36m, body_models: Path) -> None:  # F
    for subject in (5, 8):
        shutil.rmtree(own.root / f"S{subject}")
    records, defects = read_all(own, "train")
    assert {record.subject for record in records} == {"S1", "S6", "S7"}
    assert [(defect.row, defect.reason) for defect in defects] == [("S5", "missing subject"), ("S8", "missing subject")]
    chosen = reader(own.data_root, body_models, subjects=(1, 7))
    records, defects = read_all(chosen, "train")
    assert not defects and {record.subject for record in records} == {"S1", "S7"}
    assert not facts("h36m").counts(chosen.params)  # the published counts are those of all subjects
    with pytest.raises(PoseRftError, match=r"S8 does not exist.*take it out of `datasets.h36m.subjects`"):
        reader(own.data_root, body_models, subjects=(1, 8)).units("train")
    for kept in (1, 6, 7):
        shutil.rmtree(own.root / f"S{kept}")
    with pytest.raises(PoseRftError, match="has none"):
        own.units("train")


MOVABLE = H36M32.indices(H36M17.joints)


def as_mmpose_makes_it(root: Path, first: int = 1) -> None:
    """Frames and arrays of every fifth frame in place of videos and CDF files, with preprocess_h36m.py's names."""
    for split, subjects in (("train", (1, 5, 6, 7, 8)), ("test", (9, 11))):
        rows: dict[str, list] = {"imgname": [], "center": [], "scale": [], "part": [], "S": []}
        for subject in subjects:
            for path in sorted((root / f"S{subject}/Videos").glob("*.mp4")):
                stem = f"S{subject}_{path.stem.replace(' ', '_')}"
                folder = root / "images" / f"S{subject}" / stem
                folder.mkdir(parents=True)
                two, three = (
                    read_variable(root / f"S{subject}/MyPoseFeatures/{kind}/{path.stem}.cdf", "Pose")[0]
                    for kind in ("D2_Positions", "D3_Positions_mono")
                )
                sampled = range(0, two.shape[0], 5)
                for frame, picture in video.frames(path, sampled):
                    name = f"{stem}_{frame + first:06d}.jpg"
                    (folder / name).write_bytes(video.encode_jpeg(picture, 92))
                    ones = np.ones((17, 1))
                    rows["imgname"].append(f"S{subject}/{stem}/{name}")
                    rows["part"].append(np.hstack([two[frame].reshape(32, 2)[MOVABLE], ones]))
                    rows["S"].append(np.hstack([three[frame].reshape(32, 3)[MOVABLE] / 1000, ones]))
                    rows["center"].append([0.0, 0.0])
                    rows["scale"].append(1.0)
            shutil.rmtree(root / f"S{subject}")
        target = root / f"annotation_body3d/fps10/h36m_{split}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, **{name: np.array(values) for name, values in rows.items()})


@pytest.mark.parametrize("first", [1, 0])
def test_frames_and_arrays_of_mmpose_give_the_same_samples(own: H36m, first: int) -> None:  # F
    before = {r.key: r for split in ("train", "p2") for r in read_all(own, split)[0]}
    as_mmpose_makes_it(own.root, first)
    read = [read_all(own, split) for split in ("train", "p2")]
    after = {record.key: record for records, _ in read for record in records}
    assert not any(defects for _, defects in read) and set(after) == set(before)
    for key, record in after.items():
        assert record.joints3d.joint_set == record.joints2d.joint_set == "h36m17"
        np.testing.assert_allclose(record.joints3d.points, before[key].joints3d.points[MOVABLE], atol=1e-5)
        np.testing.assert_allclose(record.joints2d.points, before[key].joints2d.points[MOVABLE], atol=1e-4)
        np.testing.assert_allclose(record.smpl.transl, before[key].smpl.transl, atol=1e-5)
        assert shown(record) == shown(before[key]) and reprojection_error(record) < 0.01
        assert record.box.convention == "joints2d x1.2"
    names = {path.name for path in own.inventory()}
    assert "h36m_train.npz" in names and f"S9_Greeting.60457274_{5 + first:06d}.jpg" in names


def test_a_frame_that_was_not_extracted_is_one_defect(own: H36m) -> None:
    as_mmpose_makes_it(own.root)
    folder = own.root / "images/S9/S9_Greeting.60457274"
    (folder / "S9_Greeting.60457274_000006.jpg").unlink()
    records, defects = read_all(own, "p2")
    assert len(records) == 11 and [(d.row, d.reason) for d in defects] == [("5", "missing image")]
    path = own.root / "annotation_body3d/fps10/h36m_test.npz"
    arrays = dict(np.load(path))
    keep = np.array(["Greeting" not in name for name in arrays["imgname"]])
    np.savez(path, **{name: values[keep] for name, values in arrays.items()})
    assert {d.reason for d in read_all(own, "p2")[1]} == {"missing annotation"}
    np.savez(path, imgname=arrays["imgname"], S=arrays["S"])
    with pytest.raises(PoseRftError, match="is no h36m npz of MMPose"):
        read_all(own, "p2")


def test_arrays_of_every_fifth_frame_do_not_serve_every_second(own: H36m, body_models: Path) -> None:
    as_mmpose_makes_it(own.root)
    with pytest.raises(PoseRftError, match=r"every 5th frame; set `datasets.h36m.every` to a multiple"):
        read_all(reader(own.data_root, body_models, every=2), "p2")


def test_the_writer_gives_the_same_bytes_each_time(miniature, body_models: Path, tmp_path: Path, monkeypatch) -> None:
    task = write_h36m.tasks(PARAMS, 0)[-1]
    monkeypatch.setattr(time, "time", lambda: 1e9)  # gzip and MATLAB headers hold the time
    write_h36m.render(task, PARAMS, 0, FlatStudio(body_models), tmp_path)
    # The pictures show numbers that depend on who was placed before; poses do not.
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".mp4"]
    assert len(written) == 3
    for path in written:
        assert path.read_bytes() == (miniature[0] / path.relative_to(tmp_path)).read_bytes()
