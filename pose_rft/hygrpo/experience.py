"""What a group of candidates was, said and earned, and the loss that follows from it.

Poses are drawn from the scoring pass, not from the rollout, and the anchor of both ratios is that same pass: so the
first ratio is exactly 1 whatever the precision and however the rollout decoded (in bfloat16 two paths differ by
e^±0.7 on a pose).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.hygrpo import objective
from pose_rft.hygrpo.advantages import Advantages
from pose_rft.hygrpo.params import RFTParams, Variant
from pose_rft.inference.sampling import Answers
from pose_rft.inference.types import AnswerRewards, PoseRewards, Prompts, Scores
from pose_rft.policy.pose_head import PoseDistribution


@dataclass(frozen=True, eq=False)
class Experience:
    """All that the updates on one micro-batch of B groups need; nothing here carries a gradient.

    valid: (B, G) bool, the answer has one pose token and a pose was asked for. joint_mask: (B, 24) bool, labelled
    joints. poses: (B, G, K, 144) raw 6D numbers as drawn.
    token_anchor, pose_anchor: log-probabilities under the anchor of the ratio, (B, G, R) and (B, G, K, F).
    reference: scores of the frozen SFT policy.
    """

    prompts: Prompts
    answers: Answers
    valid: Tensor
    joint_mask: Tensor
    poses: Tensor
    token_anchor: Tensor
    pose_anchor: Tensor
    reference: Scores
    answer_rewards: AnswerRewards
    pose_rewards: PoseRewards
    answer_advantages: Advantages
    pose_advantages: Advantages


def pose_log_prob(poses: PoseDistribution, drawn: Tensor, joint_mask: Tensor, per_joint: bool) -> Tensor:
    """Log-densities of drawn poses by factor: (B, G, K, 144) → (B, G, K, F), F = 24 per joint, else 1."""
    b, g = drawn.shape[:2]
    flat, mask = drawn.flatten(0, 1), joint_mask.repeat_interleave(g, 0)
    factors = poses.joint_log_prob(flat, mask) if per_joint else poses.log_prob(flat, mask)[..., None]
    return factors.unflatten(0, (b, g))


def joint_masks(examples: Sequence[Example], device: torch.device) -> Tensor:
    """(B, 24) bool labelled joints; all False for examples without a pose."""
    none = torch.zeros(24, dtype=torch.bool)
    return torch.stack([none if e.pose_mask is None else e.pose_mask for e in examples]).to(device)


class Loss(NamedTuple):
    total: Tensor
    metrics: dict[str, float]


def hybrid_loss(scores: Scores, experience: Experience, params: RFTParams, variant: Variant) -> Loss:
    """Minus eq. 6, averaged over the groups of a micro-batch.

    `grpo` is the discrete-only ablation: the pose term is off, all else is the same. The pose KL stays, because the KL
    of eq. 6 is that of the whole policy; it holds the pose head at the SFT policy while the backbone moves.
    """
    e, mask = experience, experience.answers.mask
    text = objective.answer_surrogate(
        scores.token_log_prob, e.token_anchor, mask, e.answer_advantages.values, params.epsilon, params.ratio_level
    )
    text_kl = objective.answer_kl(scores.token_log_prob, e.reference.token_log_prob, mask, params.kl_estimator)

    per_joint = params.pose_ratio == "per_joint"
    log_prob = pose_log_prob(scores.poses, e.poses, e.joint_mask, per_joint)
    numbers = 6 * e.joint_mask.sum(-1)
    pose = objective.pose_surrogate(
        log_prob,
        e.pose_anchor,
        e.valid,
        e.joint_mask if per_joint else e.joint_mask.any(-1, keepdim=True),
        objective.pose_ratio_scale(params.pose_ratio, numbers.clamp(min=1)),
        e.pose_advantages.values.view(e.poses.shape[:3]),
        params.epsilon_pose,
    )
    candidates = e.valid.shape[1]
    kl = scores.poses.kl(e.reference.poses, e.joint_mask.repeat_interleave(candidates, 0)).view_as(e.valid)
    per_number = objective.pose_kl(kl / numbers.clamp(min=1)[:, None], e.valid)
    pose_kl = per_number if params.pose_kl == "mean" else objective.pose_kl(kl, e.valid)

    weight = params.pose_weight * objective.pose_balance(params.pose_ratio, numbers.clamp(min=1))
    gain = text.value + weight * pose.value if variant == "hygrpo" else text.value
    total = (-gain + params.beta_text * text_kl + params.beta_pose * pose_kl).mean()
    metrics = {"kl": float(text_kl.detach().mean()), "pose/kl": float(per_number.detach().mean())}
    metrics |= objective.ratio_metrics(text, params.epsilon)
    metrics |= {f"pose/{name}": value for name, value in objective.ratio_metrics(pose, params.epsilon_pose).items()}
    return Loss(total, metrics)
