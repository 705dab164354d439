"""Each form of the pose term against what it estimates: a quadratic reward, whose gradient is known."""

import math

import pytest
import torch

from pose_rft.hygrpo import objective
from pose_rft.hygrpo.advantages import group_advantages
from pose_rft.hygrpo.pose_gradients import preference, reward_value
from pose_rft.policy.pose_head import PoseDistribution

B, K, D = 64, 2000, 144
GOAL, SIGMA = 0.3, 0.5
VALID = torch.ones(B, 1, dtype=torch.bool)
NUMBERS = torch.full((B,), D)


def reward(poses: torch.Tensor) -> torch.Tensor:
    return -(poses - GOAL).square()[..., :2].sum(-1)  # of two numbers, so that little is noise


def estimate(form: str, advantage: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of the pose term in the mean and in log σ, averaged over groups."""
    mean, log_std = torch.zeros(D, requires_grad=True), torch.full((D,), math.log(SIGMA), requires_grad=True)
    poses = PoseDistribution(mean.expand(B, D), log_std.expand(B, D))
    noise = torch.randn(B, K, D, generator=torch.Generator().manual_seed(0))
    drawn = poses.at(noise)
    fixed = drawn.detach()
    advantages = group_advantages(reward(fixed), VALID.expand(B, K), 1e-4, advantage)
    if form == "pathwise":
        value = reward_value(reward(drawn)[:, None], VALID, advantages.unit, NUMBERS)
    elif form == "mean":
        value = reward_value(reward(poses.mean)[:, None, None], VALID, advantages.unit, NUMBERS)
    else:
        log_prob = poses.log_prob(fixed)[:, None, :, None]
        shown = torch.ones(B, 1, dtype=torch.bool)
        scale = NUMBERS.float().sqrt()
        spread = advantages.values[:, None]
        value = objective.pose_surrogate(log_prob, log_prob, VALID, shown, scale, spread, 0.2).value
    gradient = torch.autograd.grad(value.mean(), (mean, log_std), allow_unused=True)
    return gradient[0], torch.zeros(D) if gradient[1] is None else gradient[1]


@pytest.mark.parametrize("advantage", ["z_score", "rloo"])
def test_score_and_pathwise_gradients_agree_in_expectation(advantage):
    score, pathwise = estimate("score", advantage), estimate("pathwise", advantage)
    for one, other in zip(score, pathwise, strict=True):
        torch.testing.assert_close(one[:2], other[:2], rtol=0.1, atol=0.003)
        assert other[2:].abs().max() == 0, "of numbers that earn nothing"
        assert one[2:].abs().max() < 0.01


def test_leave_one_out_is_unbiased():
    """E[R] = -(μ - goal)² - σ² for each number: its gradients are 2 (goal - μ) and, in log σ, -2 σ²."""
    mean, log_std = (math.sqrt(D) * part[:2] for part in estimate("score", "rloo"))
    assert mean.tolist() == pytest.approx([2 * GOAL] * 2, rel=0.1)
    assert log_std.tolist() == pytest.approx([-2 * SIGMA**2] * 2, rel=0.1)


def test_the_gradient_at_the_mean_knows_no_sigma():
    mean, log_std = estimate("mean", "rloo")
    assert (math.sqrt(D) * mean[:2]).tolist() == pytest.approx([2 * GOAL] * 2)
    assert not log_std.any()


def test_held_spread_has_the_gradient_of_the_mean_alone():
    mean, log_std = torch.zeros(1, D, requires_grad=True), torch.zeros(1, D, requires_grad=True)
    free = PoseDistribution(mean, log_std)
    held = free.with_spread_held()
    x = torch.ones(1, D)
    assert torch.equal(held.log_prob(x), free.log_prob(x))
    of_held = torch.autograd.grad(held.log_prob(x).sum(), (mean, log_std), allow_unused=True)
    of_free = torch.autograd.grad(free.log_prob(x).sum(), (mean, log_std))
    assert torch.equal(of_held[0], of_free[0]) and of_held[1] is None


def test_a_preference_is_dpos_loss_of_the_best_and_the_worst_draw():
    generator = torch.Generator().manual_seed(0)
    now, before, ranks = (torch.randn(2, 2, 3, generator=generator) for _ in range(3))
    valid = torch.tensor([[True, True], [True, False]])
    now.requires_grad_()
    value = preference(now, before, ranks, valid, beta=0.5)
    for row, candidates in ((0, 2), (1, 1)):
        flat = ranks[row, :candidates].flatten()
        best, worst = int(flat.argmax()), int(flat.argmin())
        gained = (now - before)[row, :candidates].flatten().detach()
        loss = -math.log(1 / (1 + math.exp(-0.5 * float(gained[best] - gained[worst]))))
        assert -float(value[row]) == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(value.sum(), now)
    assert (gradient[1, 1] == 0).all() and ((gradient != 0).flatten(1).sum(1) == 2).all()


def test_a_group_without_a_preference_has_none():
    now = torch.randn(1, 1, 4, requires_grad=True)
    for valid in (torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)):
        value = preference(now, torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), valid, 0.1)
        (gradient,) = torch.autograd.grad(value.sum(), now)
        assert value.item() == 0 and not gradient.any()


def test_poses_that_do_not_exist_reach_no_sum():
    rewards = torch.tensor([[[1.0, 3.0], [float("nan"), float("nan")]]], requires_grad=True)
    value = reward_value(rewards, torch.tensor([[True, False]]), torch.tensor([0.5]), torch.tensor([144]))
    assert value.item() == pytest.approx(2.0 * 0.5 / 12)
    (gradient,) = torch.autograd.grad(value.sum(), rewards)
    assert gradient.isfinite().all() and not gradient[0, 1].any()
