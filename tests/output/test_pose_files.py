import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pose_rft.body.rotations import axis_angle_to_matrix, geodesic_angle
from pose_rft.cli import app
from pose_rft.errors import PoseRftError
from pose_rft.predict.pose_files import read_pose

POSE = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)) * 0.5


@pytest.mark.parametrize("form", ["flat.npy", "rows.npy", "matrices.npy", "named.npz", "predicted.json"])
def test_every_form_of_a_pose_file_gives_the_same_pose(tmp_path, form):
    path, matrices = tmp_path / form, axis_angle_to_matrix(POSE)
    if form.startswith("flat"):
        np.save(path, POSE.flatten().numpy())
    elif form.startswith("rows"):
        np.save(path, POSE.numpy())
    elif form.startswith("matrices"):
        np.save(path, matrices.numpy())
    elif form.startswith("named"):
        np.savez(path, other=np.zeros(3), pose=POSE.numpy())
    else:
        path.write_text(json.dumps({"rotation_matrices": matrices.tolist()}))
    assert geodesic_angle(read_pose(path).rotations, matrices).max() < 1e-3


@pytest.mark.parametrize("shape", [(66,), (22, 3), (22, 3, 3), (5, 66), (5, 22, 3), (5, 22, 3, 3)])
def test_of_22_joints_the_hands_stay_as_they_rest_which_is_said(tmp_path, shape):  # F
    path, matrices = tmp_path / "body.npy", axis_angle_to_matrix(POSE)
    one = matrices[:22] if shape[-2:] == (3, 3) else POSE[:22]
    many = shape[0] == 5
    one = one.numpy().reshape(shape[1:] if many else shape)
    np.save(path, np.stack([one.swapaxes(-1, -2) if one.ndim > 2 else -one] * 4 + [one]) if many else one)
    found = read_pose(path, 4 if many else 0)
    assert geodesic_angle(found.rotations[:22], matrices[:22]).max() < 1e-3
    assert torch.equal(found.rotations[22:], torch.eye(3).expand(2, 3, 3))
    assert "hands as they rest" in found.note and found.frame is None


@pytest.mark.parametrize("numbers", [156, 165])
def test_a_frame_of_amass_is_a_pose_in_its_own_frame(tmp_path, numbers):  # F
    path = tmp_path / "walk_poses.npz"
    poses = np.random.default_rng(0).normal(0, 0.3, (7, numbers))
    poses[3, :66] = POSE[:22].flatten().numpy()
    fields = {"trans": np.zeros((7, 3)), "betas": np.zeros(16), "gender": "male", "mocap_framerate": 120.0}
    np.savez(path, poses=poses, **fields)
    found = read_pose(path, 3)
    assert geodesic_angle(found.rotations[:22], axis_angle_to_matrix(POSE)[:22]).max() < 1e-3
    assert torch.equal(found.rotations[22:], torch.eye(3).expand(2, 3, 3))  # fingers are no hands of SMPL
    assert found.frame == "amass" and "frame 3 of 7" in found.note and "hands as they rest" in found.note
    with pytest.raises(PoseRftError, match=r"has 7 poses, and number 7 was asked for"):
        read_pose(path, 7)


def test_a_file_of_one_pose_has_no_second(tmp_path):
    np.save(tmp_path / "one.npy", POSE.numpy())
    with pytest.raises(PoseRftError, match="holds one pose"):
        read_pose(tmp_path / "one.npy", 1)


def test_describe_says_what_the_file_did_not(tmp_path, tiny_folder):
    np.savez(tmp_path / "stand_poses.npz", poses=np.zeros((2, 156)))
    arguments = ["describe", str(tmp_path / "stand_poses.npz"), "--number", "1", "--body-model", str(tiny_folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "frame 1 of 2 of AMASS (SMPL+H)" in done.stderr and len(done.stdout.split()) > 3


@pytest.mark.parametrize(
    "content, words",
    [
        (np.zeros(5), "shape"),
        (np.full(72, np.nan), "finite"),
        (np.full(72, 1e300), "finite"),
        (np.ones((24, 3, 3)), "no rotations"),
    ],
)
def test_what_is_no_pose_is_refused_with_what_was_expected(tmp_path, content, words):
    path = tmp_path / "bad.npy"
    np.save(path, content)
    with pytest.raises(PoseRftError, match=words) as caught:
        read_pose(path)
    assert "axis-angles (72,)" in str(caught.value)


def test_a_pickled_array_is_refused(tmp_path):
    path = tmp_path / "evil.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(PoseRftError, match="holds no pose"):
        read_pose(path)
