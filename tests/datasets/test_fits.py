import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.body.model_file import find_model_file, read_model_file
from pose_rft.datasets.fits.sources import BrokenFit, posed_joints, rest_pelvis, smpl_in_camera
from pose_rft.errors import PoseRftError
from pose_rft.record import Smpl
from tests.support.release_truth import numpy_body


@pytest.mark.parametrize("gender", ["neutral", "female"])
def test_a_body_keeps_its_place_when_the_frame_changes(body_models: Path, gender: str) -> None:
    rng = np.random.default_rng(3)
    pose, betas, transl = rng.normal(0, 0.6, (4, 24, 3)), rng.normal(0, 0.5, (4, 10)), rng.normal(0, 1, (4, 3))
    R, t = Rotation.random(rng=rng).as_matrix(), np.array([0.3, -0.2, 4.0])
    body = numpy_body(body_models, gender)
    smpls = smpl_in_camera(pose, betas, transl, R, t, body_models, "test", gender)
    for i, smpl in enumerate(smpls):
        world, _ = body.vertices(Rotation.from_rotvec(pose[i]).as_matrix(), betas[i], transl[i])
        rotations = Rotation.from_rotvec(np.concatenate([smpl.global_orient[None], smpl.body_pose])).as_matrix()
        camera, _ = body.vertices(rotations, smpl.betas, smpl.transl)
        np.testing.assert_allclose(camera, world @ R.T + t, atol=2e-5)
        assert smpl.gender == gender and smpl.valid.all()
    np.testing.assert_allclose(rest_pelvis(body_models, betas, gender)[2], body.rest_joints(betas[2])[0], atol=1e-6)


@pytest.mark.parametrize("what", ["pose", "betas", "transl"])
def test_numbers_that_are_not_finite_cost_their_own_fit_only(body_models: Path, what: str) -> None:  # C2
    numbers = {"pose": np.zeros((3, 24, 3)), "betas": np.zeros((3, 10)), "transl": np.zeros((3, 3))}
    numbers[what][1].flat[0] = np.nan
    found = smpl_in_camera(**numbers, R=np.eye(3), t=np.zeros(3), body_model=body_models, source="test")
    assert isinstance(found[0], Smpl) and isinstance(found[2], Smpl)
    assert found[1] == BrokenFit("a number that is not finite")


def test_rest_joints_are_those_of_the_torch_body_to_the_last_bit(body_models: Path) -> None:
    import torch

    from pose_rft.body.smpl import load_body_model

    betas = np.random.default_rng(0).normal(0, 2, (500, 10))
    expected = load_body_model(body_models).rest_joints(torch.tensor(betas, dtype=torch.float32))
    arrays = read_model_file(find_model_file(body_models, "neutral"))
    np.testing.assert_array_equal(arrays.rest_joints(betas), expected.numpy())
    np.testing.assert_array_equal(rest_pelvis(body_models, betas), expected[:, 0].numpy())


def test_many_bodies_at_once_stand_as_each_by_itself(body_models: Path) -> None:
    rng = np.random.default_rng(1)
    pose, betas = rng.normal(0, 0.6, (20, 24, 3)), rng.normal(0, 0.5, (20, 10))
    body, joints = numpy_body(body_models, "male"), posed_joints(pose, betas, body_models, "male")
    for i in range(20):
        np.testing.assert_array_equal(joints[i], body.joints(Rotation.from_rotvec(pose[i]).as_matrix(), betas[i]))


def test_fits_need_no_regressor_of_the_evaluation(body_models: Path, tmp_path: Path) -> None:
    shutil.copytree(body_models / "smpl", tmp_path / "smpl")
    assert posed_joints(np.zeros((1, 24, 3)), np.zeros((1, 10)), tmp_path).shape == (1, 24, 3)
    with pytest.raises(PoseRftError, match=r"J_regressor_h36m.npy does not exist"):
        NumpyBody(tmp_path).h36m_joints(np.zeros((6800, 3)))


@pytest.mark.parametrize("entry", [np.nan, 1e300, -1.0, 0.0])
def test_a_camera_that_is_no_rotation_gives_no_body(body_models, entry):
    R = np.eye(3)
    R[0, 0] = entry
    (found,) = smpl_in_camera(
        np.zeros((1, 24, 3)), np.zeros((1, 10)), np.zeros((1, 3)), R, np.zeros(3), body_models, "test"
    )
    assert found == BrokenFit("the camera is no rotation")
