import hashlib
import json
import pickle

import numpy as np
import pytest
import torch

from pose_rft.body.joints import H36M17, SMPL24
from pose_rft.body.lbs_numpy import SURFACE_VERTICES, NumpyBody
from pose_rft.body.rotations import mirror_rotations
from pose_rft.body.smpl import load_body_model
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.standin import build_standin


def poses(count: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([sample_pose(np.random.default_rng([5, i])) for i in range(count)])).float()


@pytest.fixture(scope="module")
def body(standin_folder):
    return load_body_model(standin_folder)


@pytest.mark.parametrize("gender", ["neutral", "male", "female"])
def test_every_gender_loads_and_has_the_same_topology(standin_folder, gender):
    model = load_body_model(standin_folder, gender)
    assert model.is_standin and model.name == "anny-standin"
    assert model.num_vertices == 13718 and model.faces.shape == (27420, 3)


def test_the_files_are_python_2_pickles_as_smpls_are(standin_folder):
    path = standin_folder / "smpl" / "SMPL_NEUTRAL.pkl"
    with pytest.raises(UnicodeDecodeError), open(path, "rb") as file:
        pickle.load(file)


def test_the_card_says_what_it_is_and_its_licences(standin_folder):
    card = json.loads((standin_folder / "standin.json").read_text())
    assert "not SMPL" in card["what"]
    assert card["licences"] == {"code and derived model": "Apache-2.0", "MakeHuman assets": "CC0-1.0"}


def test_the_rest_pose_is_smpls_t_pose(body):
    """Left is +x, y is up, the face looks to +z, arms straight out, legs down."""
    rest = dict(zip(SMPL24.joints, body.rest_joints()[0].numpy(), strict=True))
    assert rest["left_wrist"][0] > rest["left_elbow"][0] > rest["left_shoulder"][0] > 0.1
    assert abs(rest["left_wrist"][1] - rest["left_shoulder"][1]) < 0.05
    assert rest["head"][1] > rest["neck"][1] > rest["spine3"][1] > rest["pelvis"][1] > rest["left_knee"][1]
    assert rest["left_foot"][2] > rest["left_ankle"][2] + 0.05
    template = body.smplx.v_template.numpy()
    assert template[SURFACE_VERTICES["nose"], 2] > template[SURFACE_VERTICES["left_ear"], 2]


def test_people_have_the_height_of_adults_and_half_a_beta_is_modest(body):
    heights = []
    for beta in (-0.5, 0.0, 0.5):
        betas = torch.zeros(1, 10)
        betas[0, 0] = beta
        vertices = body.vertices(torch.eye(3).expand(1, 24, 3, 3), betas)[0]
        heights.append(float(vertices[:, 1].max() - vertices[:, 1].min()))
    assert 1.7 < heights[1] < 1.95
    assert 0.03 < abs(heights[2] - heights[0]) < 0.25


def test_surface_points_of_smplx_are_at_their_spots(body):
    template = body.smplx.v_template.numpy()
    spot = {name: template[index] for name, index in SURFACE_VERTICES.items()}
    rest = dict(zip(SMPL24.joints, body.rest_joints()[0].numpy(), strict=True))
    for side, sign in (("left", 1), ("right", -1)):
        assert sign * spot[f"{side}_ear"][0] > sign * spot[f"{side}_eye"][0] > 0.01
        assert spot[f"{side}_eye"][1] > spot["nose"][1]
        assert (
            spot[f"{side}_big_toe"][2] > rest[f"{side}_foot"][2] and spot[f"{side}_heel"][2] < rest[f"{side}_ankle"][2]
        )
        assert sign * spot[f"{side}_middle"][0] > sign * rest[f"{side}_wrist"][0] + 0.1


def test_regressed_limb_joints_follow_the_posed_skeleton(body):
    R = poses(16)
    h36m = body.h36m_joints(body.vertices(R))
    joints = body.joints(R)
    for name in ("left_knee", "right_wrist", "left_ankle", "right_shoulder", "left_hip", "right_elbow"):
        gap = (h36m[:, H36M17.index(name)] - joints[:, SMPL24.index(name)]).norm(dim=-1)
        assert gap.max() < 0.06, name


def test_mirroring_the_pose_reflects_the_joints(body):
    """The stand-in is symmetric to within the millimetres of its regressed joints."""
    R = poses(16)
    joints = body.joints(R)
    mirrored = body.joints(mirror_rotations(R))
    reflected = joints[:, list(SMPL24.flip)] * torch.tensor([-1.0, 1.0, 1.0])
    assert (mirrored - mirrored[:, :1] - reflected + reflected[:, :1]).norm(dim=-1).max() < 0.02


def test_numpy_body_agrees_with_smplx(standin_folder, tiny_folder):
    for folder in (standin_folder, tiny_folder):
        fast, model = NumpyBody(folder), load_body_model(folder).double()
        draw = torch.Generator().manual_seed(0)
        betas, transl = (torch.randn(3, n, generator=draw, dtype=torch.float64) for n in (10, 3))
        R = poses(3).double()
        expected, joints = model.vertices(R, betas, transl), model.joints(R, betas, transl)
        for i in range(3):
            vertices, points = fast.vertices(R[i].numpy(), betas[i].numpy(), transl[i].numpy())
            np.testing.assert_allclose(
                vertices, expected[i], rtol=0, atol=5e-5
            )  # metres; the renderer computes in float32
            np.testing.assert_allclose(points, joints[i], rtol=0, atol=5e-5)
            np.testing.assert_allclose(fast.h36m_joints(vertices), model.h36m_joints(expected[i]), rtol=0, atol=5e-5)
            np.testing.assert_allclose(fast.joints(R[i].double().numpy(), betas[i].numpy(), transl[i].numpy()), points)


@pytest.mark.parametrize("name", ["smpl24", "h36m32", "h36m17", "mpi28", "mpi17", "coco17", "mpii16", "openpose18"])
def test_every_joint_set_of_a_release_can_be_measured(standin_folder, name):
    from pose_rft.body.joints import joint_set, to_smpl24

    fast = NumpyBody(standin_folder)
    R = sample_pose(np.random.default_rng(1))
    vertices, joints = fast.vertices(R)
    points = fast.keypoints(vertices, joints, name)
    assert points.shape == (len(joint_set(name)), 3)
    mapped, valid = to_smpl24(points, name)
    assert np.linalg.norm(mapped[valid] - joints[valid], axis=1).max() < 0.06


def test_the_127_points_of_smplx_lie_on_the_body(standin_folder):
    fast = NumpyBody(standin_folder)
    vertices, joints = fast.vertices(sample_pose(np.random.default_rng(1)))
    points = fast.keypoints(vertices, joints, "smplx127")
    np.testing.assert_allclose(points[:22], joints[:22])
    assert np.isfinite(points).all()
    nearest = np.linalg.norm(points[22:, None] - vertices[None, ::4], axis=2).min(1)
    assert nearest.max() < 0.06


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(standin_folder, tmp_path):
    build_standin(tmp_path / "again")
    files = sorted(path.relative_to(standin_folder) for path in standin_folder.rglob("*") if path.is_file())
    assert len(files) == 5
    for name in files:
        first, second = ((root / name).read_bytes() for root in (standin_folder, tmp_path / "again"))
        assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest(), name
