"""An ensemble is used as one model, whose cosine is the mean of its members' cosines."""

import pytest
import torch

from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from pose_rft.retrieval.ensemble import load_ensemble, save_ensemble
from pose_rft.retrieval.model import RewardModel, frozen, load_retrieval
from pose_rft.retrieval.params import RetrievalParams
from tests.support.retrieval_fakes import tiny_encoder, tiny_params

TEXTS = ["the left arm points up .", "the right arm is down ."]
POSES = axis_angle_to_matrix(torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def members(tmp_path):
    params = tiny_params(tiny_encoder(tmp_path / "encoder"))
    models = []
    for seed in range(12):
        torch.manual_seed(seed)
        models.append(frozen(RewardModel(params.reward)))
    return models


def test_the_cosine_is_the_mean_of_the_members_after_saving_too(members, tmp_path):
    save_ensemble(members, tmp_path / "saved")
    ensemble = load_ensemble(tmp_path / "saved")
    assert len(ensemble.members) == 12
    texts, poses = ensemble.embed_text(TEXTS), ensemble.encode_pose(POSES)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(poses.norm(dim=1), torch.ones(2))
    each = [(m.embed_text(TEXTS) * m.embed_pose(POSES)).sum(1) for m in members]
    torch.testing.assert_close((texts * poses).sum(1), torch.stack(each).mean(0))


def test_recall_reads_the_first_member_and_one_model_is_an_ensemble_of_one(members, tmp_path):
    save_ensemble(members[:2], tmp_path / "two")
    assert torch.equal(load_retrieval(tmp_path / "two").embed_pose(POSES), members[0].embed_pose(POSES))
    members[3].save(tmp_path / "one")
    alone = load_ensemble(tmp_path / "one")
    assert len(alone.members) == 1 and torch.equal(alone.encode_pose(POSES), members[3].embed_pose(POSES))


def test_a_reward_through_the_pose_has_a_gradient(members, tmp_path):
    save_ensemble(members[:2], tmp_path / "two")
    poses = POSES.clone().requires_grad_()
    load_ensemble(tmp_path / "two").encode_pose(poses).sum().backward()
    assert poses.grad is not None and poses.grad.isfinite().all() and poses.grad.any()


def test_a_released_model_is_one_member(tmp_path):
    content = tiny_params(tiny_encoder(tmp_path / "encoder")).model_dump(mode="json") | {"members": 2}
    content["reward"]["released"] = "posescript.pth"
    with pytest.raises(PoseRftError, match=r"members is 2, but reward\.released is one model"):
        parse(content, RetrievalParams, "`retrieval`")
