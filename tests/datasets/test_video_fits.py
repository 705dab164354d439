import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.datasets.fits.sources import BrokenFit, FitSource, posed_joints
from pose_rft.datasets.fits.video_fits import VideoName, fits_of_video, frame_name, read_neuralannot
from pose_rft.errors import PoseRftError
from pose_rft.record import Camera
from pose_rft.sample import python2_pickle
from tests.support.label_truth import Truth, hmr2_arrays, spin_arrays, truth


def fit(value: float) -> dict[str, list[float]]:
    return {"pose": [value] * 72, "shape": [value] * 10, "trans": [value] * 3}


def test_fits_are_found_by_names_and_frame_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    path.write_text(json.dumps({"2": {"1": {"10": fit(0.1), "9": fit(0.2)}, "2": {}}, "16": {"2": {"0": fit(0.3)}}}))
    fits = read_neuralannot(path)
    assert set(fits) == {(2, 1), (2, 2), (16, 2)}
    sequence = fits[2, 1]
    assert sequence.pose[sequence.row_of[10]][5, 1] == 0.1 and sequence.betas[sequence.row_of[9]][0] == 0.2
    assert fits[2, 2].pose.shape == (0, 24, 3) and fits[16, 2].transl.tolist() == [[0.3] * 3]


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    for time, value in ((1, 0.1), (2, 0.2)):
        path.write_text(json.dumps({"1": {"1": {"0": fit(value)}}}))
        os.utime(path, (time, time))
        assert read_neuralannot(path)[1, 1].betas[0, 0] == value


SHORT = '{"1": {"1": {"0": {"pose": [1, 2], "shape": [], "trans": []}}}}'


@pytest.mark.parametrize("content", ['{"1": 3}', SHORT, '{"a": {"b": {}}}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "fits.json").write_text(content)
    with pytest.raises(PoseRftError, match=r"fits\.json is not a NeuralAnnot SMPL file"):
        read_neuralannot(tmp_path / "fits.json")


SPELLINGS = [
    ("images/S9_Directions_1.60457274_000006.jpg", ("S9", "Directions_1", "60457274", 6)),
    ("S1/S1_WalkingDog.54138969/S1_WalkingDog.54138969_000001.jpg", ("S1", "WalkingDog", "54138969", 1)),
    ("S1/images/S1_Directions_1.54138969/S1_Directions_1.54138969_00011.jpg", ("S1", "Directions_1", "54138969", 11)),
    ("S11_Greeting_2.58860488_001000.jpg", ("S11", "Greeting_2", "58860488", 1000)),
    ("S1/Seq2/imageFrames/video_4/frame_000011.jpg", ("S1", "Seq2", "4", 11)),
    ("S8/Seq1/imageFrames/video_0/000001.jpg", ("S8", "Seq1", "0", 1)),
    ("S4_Seq2_Cam0_001033.jpg", ("S4", "Seq2", "0", 1033)),
    ("COCO_train2014_000000000009.jpg", None),
    ("mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg", None),
]


@pytest.mark.parametrize(("name", "frame"), SPELLINGS)
def test_a_frame_is_known_by_every_spelling(name: str, frame) -> None:
    assert frame_name(name) == frame


VIDEO = VideoName(9, (2, 1), ("S9", "Directions_1", "60457274"), "S9/Directions 1_cam3_aligned.pkl")
CAMERA = Camera(np.eye(3), np.eye(3), np.zeros(3))
ROOT_TURN = Rotation.from_rotvec([np.pi, 0, 0])


@pytest.fixture(scope="module")
def people(body_models: Path) -> list[Truth]:
    return [truth(body_models, seed) for seed in range(4)]


def camera_joints(people: list[Truth], body_models: Path) -> np.ndarray:
    """(20, 24, 3): five frames of each of the people, where they truly stand."""
    pose, betas = np.stack([p.pose for p in people]), np.stack([p.betas for p in people])
    placed = posed_joints(pose, betas, body_models) + np.stack([p.transl for p in people])[:, None]
    return np.repeat(placed, 5, axis=0)


def fits(root: Path, people, body_models: Path, *sources: FitSource, frames=(0, 5, 10, 15), **options):
    joints = camera_joints(people, body_models)
    return fits_of_video(sources, root, VIDEO, frames, CAMERA, joints, "smpl24", body_models, **options)


def write_mosh(root: Path, people: list[Truth]) -> FitSource:
    """Roots in a frame whose y and z point the other way, as the files have them; names of Python 2."""
    poses = np.stack([p.pose for p in people])
    poses[:, 0] = (Rotation.from_rotvec(poses[:, 0]) * ROOT_TURN.inv()).as_rotvec()
    path = root / "h36m_mosh" / VIDEO.mosh
    path.parent.mkdir(parents=True)
    python2_pickle.dump({"new_poses": poses.reshape(-1, 72), "betas": people[0].betas}, path)
    return FitSource(source="mosh", path="h36m_mosh")


def names(people: list[Truth]) -> list[str]:
    return [f"S9_Directions_1.60457274_{5 * i + 1:06d}.jpg" for i in range(len(people))]


def test_mosh_has_a_pose_for_every_5th_frame(tmp_path: Path, people, body_models: Path) -> None:
    entry = write_mosh(tmp_path, people)
    found = fits(tmp_path, people, body_models, entry, frames=(0, 3, 5, 10, 15, 16))
    assert set(found) == {0, 5, 10, 15}
    for frame, smpl in found.items():
        person = people[frame // 5]
        turn = Rotation.from_rotvec(smpl.global_orient) * Rotation.from_rotvec(person.pose[0]).inv()
        assert turn.magnitude() < 1e-5 and smpl.source == "mosh"
        np.testing.assert_allclose(smpl.body_pose, person.pose[1:], atol=1e-6)
        np.testing.assert_allclose(smpl.betas, people[0].betas, atol=1e-6)
    np.testing.assert_allclose(found[0].transl, people[0].transl, atol=1e-4)
    other = VideoName(9, (2, 1), VIDEO.picture, "S9/Directions 1_cam0_aligned.pkl")
    joints = camera_joints(people, body_models)
    assert fits_of_video([entry], tmp_path, other, (0, 5), CAMERA, joints, "smpl24", body_models) == {}


@pytest.mark.parametrize("kind", ["spin", "hmr2"])
def test_label_files_are_joined_by_the_name_of_the_frame(tmp_path: Path, people, body_models: Path, kind: str) -> None:
    mixed = [2, 0, 3, 1]
    write = spin_arrays if kind == "spin" else hmr2_arrays
    listed = [names(people)[i] for i in mixed[:3]] + ["S9_Directions_1.54138969_000006.jpg"]  # another camera
    np.savez(tmp_path / "rows.npz", **write([people[i] for i in mixed], listed))
    found = fits(tmp_path, people, body_models, FitSource(source=kind, path="rows.npz"))
    assert set(found) == {0, 10, 15}
    for frame, smpl in found.items():
        np.testing.assert_allclose(smpl.body_pose, people[frame // 5].pose[1:], atol=1e-6)
        np.testing.assert_allclose(smpl.transl, people[frame // 5].transl, atol=1e-4)


def test_the_first_listed_source_wins_for_each_frame(tmp_path: Path, people, body_models: Path) -> None:
    mosh = write_mosh(tmp_path, people[:3])
    np.savez(tmp_path / "rows.npz", **spin_arrays(people[1:], names(people)[1:]))
    (tmp_path / "S9.json").write_text(json.dumps({"2": {"1": {"5": fit(0.1)}}}))
    neural, spin = FitSource(source="neuralannot", path="S{subject}.json"), FitSource(source="spin", path="rows.npz")

    def by_frame(*order: FitSource) -> dict[int, str]:
        found = fits(tmp_path, people, body_models, *order)
        return {frame: found[frame].source for frame in sorted(found)}

    assert by_frame(neural, mosh, spin) == {0: "mosh", 5: "neuralannot", 10: "mosh", 15: "spin"}
    assert by_frame(spin, mosh, neural) == {0: "mosh", 5: "spin", 10: "spin", 15: "spin"}


def test_missing_files_are_named_unless_the_split_may_lack_them(tmp_path: Path, people, body_models: Path) -> None:
    entry = FitSource(source="neuralannot", path="S{subject}.json")
    with pytest.raises(PoseRftError, match=r"S9\.json do not exist; get them from .*NeuralAnnot"):
        fits(tmp_path, people, body_models, entry)
    assert fits(tmp_path, people, body_models, entry, optional=True) == {}
    with pytest.raises(PoseRftError, match="EFT has no fits of videos"):
        fits(tmp_path, people, body_models, FitSource(source="eft", path="S9.json"))


def test_other_mosh_files_are_refused(tmp_path: Path, people, body_models: Path) -> None:
    entry = write_mosh(tmp_path, people)
    path = tmp_path / "h36m_mosh" / VIDEO.mosh
    python2_pickle.dump({"poses": np.zeros((4, 72))}, path)
    with pytest.raises(PoseRftError, match="is no MoSh file"):
        fits(tmp_path, people, body_models, entry)
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(PoseRftError, match=r"posix\.system"):
        fits(tmp_path, people, body_models, entry)


@pytest.mark.parametrize("first", [0, 1])
def test_frames_of_a_label_file_are_counted_from_the_first_number_that_is_there(
    tmp_path: Path, people, body_models: Path, first: int
) -> None:  # A3
    listed = [f"S9_Directions_1.60457274_{5 * i + first:06d}.jpg" for i in range(len(people))]
    np.savez(tmp_path / "rows.npz", **spin_arrays(people, listed))
    found = fits(tmp_path, people, body_models, FitSource(source="spin", path="rows.npz"))
    assert sorted(found) == [0, 5, 10, 15]
    for frame, smpl in found.items():
        np.testing.assert_allclose(smpl.body_pose, people[frame // 5].pose[1:], atol=1e-6)


@pytest.mark.parametrize("kind", ["neuralannot", "mosh", "spin", "hmr2"])
def test_one_fit_that_is_not_finite_is_broken_and_the_others_stand(
    tmp_path: Path, people, body_models: Path, kind: str
) -> None:  # C2
    pose = people[2].pose.copy()
    pose[5] = np.nan
    bad = [*people[:2], replace(people[2], pose=pose), people[3]]
    path = "rows.npz"
    if kind == "neuralannot":
        path = "S9.json"
        content = {str(5 * i): fit(0.1 if i != 2 else np.nan) for i in range(4)}
        (tmp_path / path).write_text(json.dumps({"2": {"1": content}}))
    elif kind == "mosh":
        path = write_mosh(tmp_path, bad).path
    else:
        np.savez(tmp_path / path, **(spin_arrays if kind == "spin" else hmr2_arrays)(bad, names(bad)))
    entry = FitSource(source=kind, path=path)  # type: ignore[arg-type]
    found = fits(tmp_path, people, body_models, entry)
    assert sorted(found) == [0, 5, 10, 15]
    assert [frame for frame, smpl in found.items() if isinstance(smpl, BrokenFit)] == [10]
    problem = found[10].problem
    assert (
        "not finite" in problem
        and {"neuralannot": "S9.json, 2/1, frame 10", "mosh": "pose 2"}.get(kind, "row 2") in problem
    )
    # Frames that are scored by the release's joints lose nothing but the fit.
    assert sorted(fits(tmp_path, people, body_models, entry, optional=True)) == [0, 5, 15]
