"""Whole steps of the trainer in each form of the pose term, and SFT on the same prompts."""

from dataclasses import replace

import pytest
import torch

from pose_rft.batches.collate import Collator
from pose_rft.hygrpo.run_artifacts import watched
from pose_rft.inference.rewards import Rewards
from pose_rft.training import sft
from pose_rft.training.losses import LossParams
from tests.hygrpo.test_learning import TowardsOnePose, look
from tests.support.rft_fakes import REWARDS, Scripted, fake_rewards, make_trainer, rft_params, three_answers
from tests.support.training_fakes import Chain

POSES_ONLY = {"mixture": {"image_pose": {"coco": 1.0}}}
FORMS = ("score", "pathwise", "mean", "dpo")


class Graded(TowardsOnePose):
    """Its reward with a gradient."""

    def graded(self, examples, poses, valid):
        return -(poses - self.target).norm(dim=-1)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_takes_a_step_with_and_without_poses(tmp_path, form):
    trainer, processor = make_trainer(tmp_path, rft_params(pose_gradient=form, updates_per_rollout=2))
    values = trainer.step(0).values
    assert values["grad_norm"] > 0 and all(value == value for value in values.values())
    speechless = Scripted(processor, [three_answers(processor)[2]] * 3)
    trainer.tools = trainer.tools.__class__(**(vars(trainer.tools) | {"rollout": speechless}))
    assert all(value == value for value in trainer.step(1).values.values())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_learns_a_target_pose(tmp_path, form):
    params = rft_params(
        steps=40,
        batch=8,
        group_size=2,
        poses_per_answer=16,
        beta_pose=0.0,
        beta_spread=0.0,
        pose_gradient=form,
        pose_weight=1.0 if form != "dpo" else 0.3,
        examples=POSES_ONLY,
    )
    trainer, processor = make_trainer(tmp_path, params)
    template, wrong, _ = three_answers(processor)
    tools = {"rollout": Scripted(processor, [template, wrong]), "rewards": Graded(processor, shuffled=False)}
    trainer.tools = trainer.tools.__class__(**(vars(trainer.tools) | tools))
    before, _ = look(trainer)
    for step in range(40):
        trainer.step(step)
    assert look(trainer)[0] < 0.9 * before


@pytest.mark.parametrize("form", ["score", "pathwise", "mean", "dpo"])
def test_outside_the_pose_term_sigmas_head_stands_still(tmp_path, form):
    held = form == "mean"  # the reward of μ never reaches it
    params = rft_params(
        pose_gradient=form, reward_moves_sigma=held, beta_pose=0.0, beta_spread=0.0, beta_text=0.0, examples=POSES_ONLY
    )
    trainer, _ = make_trainer(tmp_path, params)
    head = trainer.engine.module.pose_head
    before = {name: value.detach().clone() for name, value in head.named_parameters()}
    trainer.step(0)
    moved = {name for name, value in head.named_parameters() if not torch.equal(value, before[name])}
    assert moved and not [name for name in moved if name.startswith("log_std")]


def judged(tmp_path, form: str) -> tuple[Rewards, list, torch.Tensor, torch.Tensor]:
    trainer, processor = make_trainer(tmp_path)
    forms = {"joint_form": "energy", "semantic_form": "energy"} if form == "energy" else {}
    rewards = fake_rewards(processor, **forms)
    drawn = map(trainer.tools.draw, range(40))
    examples = {e.task: e for e in drawn if e.pose6d is not None}
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(len(examples), 2, 3, 144, generator=generator)
    return rewards, list(examples.values()), poses, torch.ones(len(examples), 2, dtype=torch.bool)


@pytest.mark.parametrize("form", ["paper", "energy"])
def test_the_gradient_of_a_reward_is_that_of_finite_differences(tmp_path, form):
    rewards, examples, poses, valid = judged(tmp_path, form)
    assert {e.task for e in examples} == {"image_pose", "text_pose", "image_text_pose"}
    poses.requires_grad_()
    (gradient,) = torch.autograd.grad(rewards.graded(examples, poses, valid).sum(), poses)
    assert gradient.isfinite().all()
    direction = torch.zeros_like(poses)  # one draw moves: of a pair, the gradient is of a draw's own place
    direction[:, 0, 0] = torch.randn(144, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        up, down = (rewards.graded(examples, poses + s * direction, valid)[:, 0, 0] for s in (1e-3, -1e-3))
    slope = (gradient * direction).flatten(1).sum(1)
    torch.testing.assert_close((up - down) / 2e-3, slope, rtol=2e-2, atol=2e-3)


def test_the_energy_reward_of_a_draw_alone_is_its_distance(tmp_path):
    rewards, examples, poses, valid = judged(tmp_path, "energy")
    alone = rewards.poses(examples, poses[:, :1, :1], valid[:, :1])
    assert (alone.value < 0).all()
    two = rewards.poses(examples, poses[:, :1, :2], valid[:, :1])
    assert (two.value > alone.value).any(), "a pair is worth what it is apart"


def test_what_is_held_out_is_measured_alike_whatever_the_group_is_rewarded_by(tmp_path):
    rewards, examples, poses, valid = judged(tmp_path, "energy")
    paper, *_ = judged(tmp_path / "paper", "paper")
    assert torch.equal(rewards.alone().poses(examples, poses, valid).value, paper.poses(examples, poses, valid).value)
    assert fake_rewards(rewards.processor, joint_form="exponential").alone().params.joint_form == "exponential"


def test_sft_continues_on_the_prompts_of_a_run_and_its_log_has_the_looks(tmp_path):
    trainer, processor = make_trainer(tmp_path, rft_params(engine={"lr": 3e-3}, examples=POSES_ONLY))
    stream = trainer.tools.draw.__self__
    tokens = trainer.tools.prepare.image_tokens
    weights = LossParams(rotation=1.0, nll=0.1, joints=10.0)
    step = sft.stepper(trainer.engine, stream, Collator(processor), tokens, Chain(), 4, weights)
    looked = watched(step, lambda number: {"heldout/x": float(number)})
    losses = [looked(number) for number in range(8)]
    assert losses[3].values["heldout/x"] == 3 and losses[3].values["joints/image_pose"] > 0
    assert losses[-1].loss < losses[0].loss


def gradients_of_a_step(trainer, step) -> dict[str, torch.Tensor]:
    found, update = {}, trainer.engine.step

    def kept(number: int) -> float:
        parameters = trainer.engine.module.named_parameters()
        found.update({name: value.grad.clone() for name, value in parameters if value.grad is not None})
        return update(number)

    trainer.engine.step = kept
    step(0)
    return found


def test_supervision_beside_nothing_else_is_a_step_of_sft(tmp_path):
    """Without rewards and KL the gradient of HyGRPO's step with `supervised` is that of SFT on the same prompts."""
    weights = LossParams(rotation=1.0, nll=0.1, joints=10.0)
    silent = dict.fromkeys(("format_weight", "text_weight"), 0.0)
    off = {"beta_text": 0.0, "beta_pose": 0.0, "beta_spread": 0.0, "pose_weight": 0.0, "batch": 8}
    params = rft_params(engine={"lr": 3e-3, "accumulation": 2}, rewards=REWARDS | silent, **off)
    beside, processor = make_trainer(tmp_path / "beside", params)
    collator, tokens = Collator(processor), beside.tools.prepare.image_tokens
    taught = sft.supervision(collator, tokens, Chain(), weights, beside.engine.device)
    beside.tools = replace(beside.tools, taught=taught, rewards=fake_rewards(processor, **silent))
    alone, _ = make_trainer(tmp_path / "alone", params)
    tokens, stream = alone.tools.prepare.image_tokens, alone.tools.draw.__self__
    step = sft.stepper(alone.engine, stream, collator, tokens, Chain(), 8, weights)
    found, expected = gradients_of_a_step(beside, beside.step), gradients_of_a_step(alone, step)
    assert found.keys() == expected.keys() and max(float(value.abs().max()) for value in expected.values()) > 0.01
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=name)
