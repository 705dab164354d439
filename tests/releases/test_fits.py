from pathlib import Path

import numpy as np
import pytest
from release_truth import numpy_body
from scipy.spatial.transform import Rotation

from pose_rft.errors import PoseRftError
from pose_rft.releases.fits import rest_pelvis, smpl_in_camera


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


def test_numbers_that_are_not_finite_are_refused(body_models: Path) -> None:
    pose = np.zeros((1, 24, 3))
    pose[0, 3, 1] = np.nan
    with pytest.raises(PoseRftError, match="not finite"):
        smpl_in_camera(pose, np.zeros((1, 10)), np.zeros((1, 3)), np.eye(3), np.zeros(3), body_models, "test")
