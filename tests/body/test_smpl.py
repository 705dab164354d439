import math
import pickle

import numpy as np
import pytest
import roma
import torch

from pose_rft.body.joints import H36M17, LSP14, SMPL24
from pose_rft.body.model_file import accepted_names
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.sample import python2_pickle


def rotations(*shape: int, scale: float = 0.7) -> torch.Tensor:
    torch.manual_seed(0)
    return roma.rotvec_to_rotmat(scale * torch.randn(*shape, 24, 3))


@pytest.fixture(scope="module")
def body(tiny_folder):
    return load_body_model(tiny_folder)


def test_the_chain_agrees_with_smplx(body):
    R, betas, transl = rotations(4), torch.randn(4, 10), torch.randn(4, 3)
    out = body.smplx(betas=betas, global_orient=R[:, :1], body_pose=R[:, 1:], transl=transl, pose2rot=False)
    torch.testing.assert_close(body.joints(R, betas, transl), out.joints[:, :24], atol=1e-5, rtol=0)
    torch.testing.assert_close(body.vertices(R, betas, transl), out.vertices)


def test_no_betas_means_the_mean_shape(body):
    R = rotations(3)
    zeros = torch.zeros(3, 10)
    torch.testing.assert_close(body.joints(R), body.joints(R, zeros))
    torch.testing.assert_close(body.vertices(R), body.vertices(R, zeros))
    torch.testing.assert_close(body.eval_joints(R), body.eval_joints(R, zeros))


def test_evaluation_joints_equal_the_regressor_on_all_vertices(body):
    R, betas = rotations(4), torch.randn(4, 10)
    h36m = body.h36m_joints(body.vertices(R, betas))
    expected = (h36m - h36m[:, :1])[:, H36M17.indices(LSP14.joints)]
    torch.testing.assert_close(body.eval_joints(R, betas), expected, atol=1e-5, rtol=0)


def test_leading_dimensions_are_free(body):
    R = rotations(2, 5)
    for function in (body.joints, body.eval_joints):
        torch.testing.assert_close(function(R).flatten(0, 1), function(R.flatten(0, 1)))
    torch.testing.assert_close(body.joints(R[0, 0]), body.joints(R)[0, 0])
    assert body.joints(R).shape == (2, 5, 24, 3)


def test_joints_are_differentiable_and_the_model_is_frozen(body):
    R = rotations(2).requires_grad_()
    body.joints(R).square().sum().backward()
    assert R.grad[:, 0].abs().sum() > 0
    assert not list(body.parameters())


def test_root_turns_the_body_about_its_rest_pelvis(body):
    R = torch.eye(3).repeat(1, 24, 1, 1)
    R[:, 0] = roma.rotvec_to_rotmat(torch.tensor([0.0, math.pi / 2, 0.0]))
    rest = body.rest_joints()
    turned = body.joints(R)
    torch.testing.assert_close(turned[:, 0], rest[:, 0])
    torch.testing.assert_close(turned - turned[:, :1], (rest - rest[:, :1]) @ R[0, 0].T, atol=1e-6, rtol=0)


def test_autocast_does_not_touch_the_joints(body):
    R = rotations(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for function in (body.joints, body.eval_joints, body.vertices):
            cast = function(R)
            assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, body.vertices(R))
    assert body.joints(R.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("gender", ["neutral", "male", "female"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_official_name_loads(tmp_path, tiny_model, gender, version):
    python2_pickle.dump(tiny_model, tmp_path / "smpl" / accepted_names(gender)[version])
    assert load_body_model(tmp_path, gender).name == "smpl"


def test_chumpy_files_of_v1_0_0_load_as_v1_1_0(tmp_path, tiny_model, body):
    old = dict(tiny_model)
    for key in ("v_template", "shapedirs", "posedirs", "weights"):
        old[key] = python2_pickle.Chumpy(np.asarray(old[key], dtype=np.float64))
    path = tmp_path / "smpl" / "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"
    python2_pickle.dump(old, path)
    with pytest.raises((UnicodeDecodeError, ModuleNotFoundError)), open(path, "rb") as file:
        pickle.load(file)
    R, betas = rotations(2), torch.randn(2, 10)
    torch.testing.assert_close(load_body_model(tmp_path).vertices(R, betas), body.vertices(R, betas))


def test_300_shape_directions_are_cut_to_ten(tmp_path, tiny_model):
    wide = tiny_model | {"shapedirs": np.concatenate([tiny_model["shapedirs"], np.ones((6800, 3, 20))], axis=2)}
    python2_pickle.dump(wide, tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    assert load_body_model(tmp_path).rest_joints(torch.ones(1, 10)).shape == (1, 24, 3)


def test_both_leg_orders_of_the_regressor_give_the_same_joints(tmp_path, tiny_model, tiny_folder, body):
    right_first = np.load(tiny_folder / "J_regressor_h36m.npy")
    left_first = right_first[[0, 4, 5, 6, 1, 2, 3, *range(7, 17)]]
    python2_pickle.dump(tiny_model, tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    np.save(tmp_path / "J_regressor_h36m.npy", left_first)
    other = load_body_model(tmp_path)
    R = rotations(2)
    torch.testing.assert_close(other.eval_joints(R), body.eval_joints(R))
    rest = body.h36m_joints(body.smplx.v_template)
    assert rest[H36M17.index("left_knee"), 0] > 0 > rest[H36M17.index("right_knee"), 0]


def test_a_missing_model_names_the_folder_the_files_and_the_source(tmp_path):
    with pytest.raises(PoseRftError, match=r"smpl has no male SMPL model \(SMPL_MALE.pkl, .*smpl.is.tue.mpg.de"):
        load_body_model(tmp_path, "male")


def test_an_npz_container_is_called_one(tmp_path):
    (tmp_path / "smpl").mkdir()
    np.savez(tmp_path / "smpl" / "SMPL_NEUTRAL.npz", v_template=np.zeros((3, 3)))
    with pytest.raises(PoseRftError, match=r"is an npz container, expected the pickle SMPL_NEUTRAL\.pkl"):
        load_body_model(tmp_path)
    (tmp_path / "smpl" / "SMPL_NEUTRAL.npz").rename(tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    with pytest.raises(PoseRftError, match="is an npz container, expected a pickle"):
        load_body_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "lacks weights; an SMPL model file has v_template"),
        ({"v_template": np.zeros((6800, 2))}, r"v_template has shape \(6800, 2\), expected \(6800, 3\)"),
        ({"posedirs": np.zeros((6800, 3, 459))}, r"posedirs has shape .*is it SMPL \(not SMPL-H or SMPL-X\)"),
        ({"shapedirs": np.zeros((6800, 3, 9))}, "shapedirs has shape .*10 or more"),
        ({"f": np.array([[0, 1, 6800]])}, "points beyond the 6800 vertices"),
        ({"kintree_table": np.array([range(-1, 23), range(24)])}, "is not SMPL's tree of 24 joints"),
        ({"v_template": np.full((6800, 3), np.nan)}, "v_template holds a number that is not finite"),
        ({"v_template": np.full((6800, 3), 1e20)}, "v_template holds a number that is not finite"),
        ({"weights": "x"}, "weights holds .* values, expected numbers"),
    ],
)
def test_a_wrong_model_file_is_refused_with_the_reason(tmp_path, tiny_model, change, message):
    content = {key: value for key, value in (tiny_model | change).items() if value is not None}
    python2_pickle.dump(content, tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    with pytest.raises(PoseRftError, match=message):
        load_body_model(tmp_path)


def test_too_few_vertices_are_refused_as_smplx_would_crash_later(tmp_path, tiny_model):
    few = dict(tiny_model, J_regressor=tiny_model["J_regressor"][:, :6787], f=np.array([[0, 1, 2]]))
    few |= {key: tiny_model[key][:6787] for key in ("v_template", "shapedirs", "posedirs", "weights")}
    python2_pickle.dump(few, tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    with pytest.raises(PoseRftError, match="has 6787 vertices, expected at least 6788"):
        load_body_model(tmp_path)


def test_a_regressor_of_another_body_is_refused(tmp_path, tiny_model):
    python2_pickle.dump(tiny_model, tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    np.save(tmp_path / "J_regressor_h36m.npy", np.zeros((17, 6890)))
    with pytest.raises(PoseRftError, match=r"shape \(17, 6890\), expected \(17, 6800\)"):
        load_body_model(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20])
def test_a_regressor_with_numbers_that_none_has_is_refused(tmp_path, tiny_model, tiny_folder, value):
    python2_pickle.dump(tiny_model, tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    regressor = np.load(tiny_folder / "J_regressor_h36m.npy")
    regressor[3, 5] = value
    np.save(tmp_path / "J_regressor_h36m.npy", regressor)
    with pytest.raises(PoseRftError, match=r"J_regressor_h36m\.npy holds a number that is not finite"):
        load_body_model(tmp_path)


def test_the_regressor_is_asked_for_only_when_it_is_needed(tmp_path, tiny_model):
    python2_pickle.dump(tiny_model, tmp_path / "smpl" / "SMPL_NEUTRAL.pkl")
    body = load_body_model(tmp_path)
    assert body.joints(rotations(1)).shape == (1, len(SMPL24), 3)
    with pytest.raises(PoseRftError, match=r"J_regressor_h36m\.npy does not exist"):
        body.eval_joints(rotations(1))
