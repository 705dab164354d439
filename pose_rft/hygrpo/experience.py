"""The candidates of a group with their rewards and advantages, and the loss computed from them.

Poses are drawn from the scoring pass, not from the rollout. Both ratios are anchored to that same pass, so the first
ratio is exactly 1 in any precision and however the rollout decoded (in bfloat16 the two paths differ by e^±0.7 on a
pose).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.hygrpo import objective
from pose_rft.hygrpo.advantages import Advantages
from pose_rft.hygrpo.params import RFTParams, Variant
from pose_rft.hygrpo.pose_gradients import preference, reward_value
from pose_rft.hygrpo.spread import entropy_lost, split_kl
from pose_rft.inference.sampling import Completions
from pose_rft.inference.types import AnswerRewards, PoseRewards, Prompts, Scores
from pose_rft.policy.pose_head import PoseDistribution


@dataclass(frozen=True, eq=False)
class Experience:
    """Everything that the updates on one micro-batch of B groups need, without gradients.

    valid: (B, G) bool, the answer has one pose token and a pose was asked for. joint_mask: (B, 24) bool, labelled
    joints. poses: (B, G, K, 144) raw 6D numbers as drawn; noise: (B, G, K, …), the standard normal numbers behind them.
    token_anchor, pose_anchor: log-probabilities under the ratio's anchor policy, (B, G, R) and (B, G, K, F).
    reference: scores under the frozen SFT policy.
    """

    prompts: Prompts
    answers: Completions
    valid: Tensor
    joint_mask: Tensor
    poses: Tensor
    noise: Tensor
    token_anchor: Tensor
    pose_anchor: Tensor
    reference: Scores
    answer_rewards: AnswerRewards
    pose_rewards: PoseRewards
    answer_advantages: Advantages
    pose_advantages: Advantages


def pose_log_prob(poses: PoseDistribution, drawn: Tensor, joint_mask: Tensor, per_joint: bool) -> Tensor:
    """Log-densities of drawn poses by factor: (B, G, K, 144) → (B, G, K, F); F is 24 with `per_joint`, else 1."""
    b, g = drawn.shape[:2]
    flat, mask = drawn.flatten(0, 1), joint_mask.repeat_interleave(g, 0)
    factors = poses.joint_log_prob(flat, mask) if per_joint else poses.log_prob(flat, mask)[..., None]
    return factors.unflatten(0, (b, g))


def joint_masks(examples: Sequence[Example], device: torch.device) -> Tensor:
    """(B, 24) bool labelled joints; all False for examples without a pose."""
    none = torch.zeros(24, dtype=torch.bool)
    return torch.stack([none if e.pose_mask is None else e.pose_mask for e in examples]).to(device)


class Loss(NamedTuple):
    """The loss of a micro-batch and the metrics to log."""

    total: Tensor
    metrics: dict[str, float]


Judge = Callable[[Tensor], Tensor]  # rewards of poses (B, G, K, 144) with their gradient, (B, G, K)


def hybrid_loss(
    scores: Scores, experience: Experience, params: RFTParams, variant: Variant, judge: Judge | None = None
) -> Loss:
    """Minus eq. 6, averaged over the groups of a micro-batch.

    `grpo` is the discrete-only ablation: it drops the pose term and nothing else. The pose KL stays, because the KL
    of eq. 6 is that of the whole policy; it holds the pose head at the SFT policy while the backbone moves.

    Args:
        judge: differentiable reward for the same prompts; `pathwise` and `mean` need it.
    """
    e, mask = experience, experience.answers.mask
    text = objective.answer_surrogate(
        scores.token_log_prob, e.token_anchor, mask, e.answer_advantages.values, params.epsilon, params.ratio_level
    )
    text_kl = objective.answer_kl(scores.token_log_prob, e.reference.token_log_prob, mask, params.kl_estimator)
    metrics = {"kl": float(text_kl.detach().mean()), **objective.ratio_metrics(text, params.epsilon)}
    loss = params.beta_text * text_kl - text.value
    if variant == "hygrpo":
        value, seen = pose_term(scores.poses, e, params, judge)
        loss = loss - params.pose_weight * value
        metrics |= {f"pose/{name}": number for name, number in seen.items()}

    each = e.joint_mask.repeat_interleave(e.valid.shape[1], 0)
    numbers = (6 * e.joint_mask.sum(-1, keepdim=True)).clamp(min=1)
    kl = split_kl(scores.poses, e.reference.poses, each)
    held = (params.beta_pose * kl.mean + params.beta_spread * kl.spread).view_as(e.valid)
    loss = loss + objective.pose_kl(held / (numbers if params.pose_kl == "mean" else 1), e.valid)
    if params.entropy_weight:
        lost = entropy_lost(scores.poses, e.reference.poses, each).view_as(e.valid) / numbers
        loss = loss + params.entropy_weight * objective.pose_kl(lost, e.valid)
    for name, part in (("kl", kl.mean + kl.spread), ("kl_spread", kl.spread)):
        metrics[f"pose/{name}"] = float(objective.pose_kl(part.detach().view_as(e.valid) / numbers, e.valid).mean())
    return Loss(loss.mean(), metrics)


def pose_term(
    poses: PoseDistribution, e: Experience, params: RFTParams, judge: Judge | None
) -> tuple[Tensor, dict[str, float]]:
    """The pose term of each group's objective, (B,), in the form `rft.pose_gradient`, and metrics to log."""
    poses = poses if params.reward_moves_sigma else poses.with_spread_held()
    shape, numbers = e.poses.shape[:3], (6 * e.joint_mask.sum(-1)).clamp(min=1)
    advantages = e.pose_advantages.values.view(shape)
    if params.pose_gradient in ("pathwise", "mean"):
        assert judge is not None
        mean = params.pose_gradient == "mean"
        drawn = poses.mean[:, None] if mean else poses.at(e.noise.flatten(0, 1))
        drawn = drawn.unflatten(0, shape[:2])
        labelled = e.joint_mask.repeat_interleave(6, 1)[:, None, None]
        rewards = judge(torch.where(labelled, drawn, drawn.detach()))
        return reward_value(rewards, e.valid, e.pose_advantages.unit, numbers), {}
    if params.pose_gradient == "dpo":
        now, before = (
            pose_log_prob(p, e.poses, e.joint_mask, per_joint=False)[..., 0] for p in (poses, e.reference.poses)
        )
        return preference(now, before, advantages, e.valid, params.dpo_beta), {}
    per_joint = params.pose_ratio == "per_joint"
    surrogate = objective.pose_surrogate(
        pose_log_prob(poses, e.poses, e.joint_mask, per_joint),
        e.pose_anchor,
        e.valid,
        e.joint_mask if per_joint else e.joint_mask.any(-1, keepdim=True),
        objective.pose_ratio_scale(params.pose_ratio, numbers),
        advantages,
        params.epsilon_pose,
    )
    value = objective.pose_balance(params.pose_ratio, numbers) * surrogate.value
    return value, objective.ratio_metrics(surrogate, params.epsilon_pose)
