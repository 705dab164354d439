"""The claim that can fail: on a reward with a known answer, HyGRPO learns, shuffled rewards teach nothing, and the
discrete-only ablation does not move the pose."""

import pytest
import torch

from pose_rft.inference.rewards import Rewards
from pose_rft.inference.types import PoseRewards
from tests.support.rft_fakes import Scripted, fake_rewards, make_trainer, rft_params, three_answers

STEPS = 40


class TowardsOnePose(Rewards):
    """The reward of a pose is minus its distance to one target, whatever was asked; `shuffled` hands rewards out at
    random within the group, which keeps their distribution."""

    def __init__(self, processor, shuffled: bool) -> None:
        self.__dict__.update(vars(fake_rewards(processor)))
        generator = torch.Generator().manual_seed(5)
        self.target = torch.randn(144, generator=generator) * 0.5
        self.shuffled, self.generator = shuffled, generator

    def poses(self, examples, poses, valid):
        reward = -(poses - self.target).norm(dim=-1)
        if self.shuffled:
            flat = reward.flatten(1)
            order = torch.rand(flat.shape, generator=self.generator).argsort(1)
            reward = flat.gather(1, order).view(reward.shape)
        return PoseRewards(reward, torch.full_like(reward, float("nan")))


def look(trainer) -> tuple[float, float]:
    """Distance to the target of the mean pose of the template answer, and its deviation, over some pictures."""
    tools = trainer.tools
    prompts = tools.prepare([tools.draw(position) for position in range(16)])
    with torch.no_grad():
        answers = tools.rollout(trainer.engine.module, prompts, None)
        poses = tools.score(trainer.engine.module, prompts, answers).poses
    return float((poses.mean - tools.rewards.target).norm(dim=-1).mean()), float(poses.std().mean())


def trained(folder, variant: str, shuffled: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """What a look shows before and after."""
    params = rft_params(
        steps=STEPS,
        batch=8,
        group_size=2,
        poses_per_answer=16,
        beta_pose=0.0,
        engine={"lr": 3e-3},
        examples={"mixture": {"image_pose": {"coco": 1.0}}},
    )
    trainer, processor = make_trainer(folder, params, variant)  # type: ignore[arg-type]
    template, wrong, _ = three_answers(processor)
    tools = {"rollout": Scripted(processor, [template, wrong]), "rewards": TowardsOnePose(processor, shuffled)}
    trainer.tools = trainer.tools.__class__(**(vars(trainer.tools) | tools))
    before = look(trainer)
    for step in range(STEPS):
        trainer.step(step)
    return before, look(trainer)


def test_hygrpo_learns_a_target_pose_from_rewards_alone(tmp_path):
    (before, _), (after, _) = trained(tmp_path, "hygrpo", shuffled=False)
    assert after < 0.7 * before


def test_shuffled_rewards_teach_nothing_and_keep_the_deviation(tmp_path):
    (before, sigma), (after, sigma_after) = trained(tmp_path, "hygrpo", shuffled=True)
    assert after > 0.95 * before
    assert sigma_after == pytest.approx(sigma, rel=0.15)


def test_discrete_only_grpo_does_not_move_the_pose_towards_its_reward(tmp_path):
    (before, _), (after, _) = trained(tmp_path, "grpo", shuffled=False)
    assert after > 0.95 * before
