"""The HyGRPO objective as functions of tensors (paper eq. 6 and 21).

    J = E_q[ 1/G Σ_i min(r_d F̂, clip(r_d) F̂) + 1/V Σ_i min(r_c Δ̂, clip(r_c) Δ̂) - β D_KL(π_θ ‖ π_ref) ]

Each function returns one number per group, (B,). The trainer averages over groups, so equal micro-batches on any
number of ranks sum to the same gradient. Axes: G for the candidates of a group, R for tokens, K for the poses of one
candidate, F for the factors of one pose's ratio (1 for the whole pose, 24 joint by joint).

The answer's ratio r_d is a constant in the pose term (eq. 20). The pose term here uses no token log-probability at
all, so it cannot send gradient through one; it reaches the backbone through the hidden state only.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

RatioLevel = Literal["token", "sequence", "sequence_mean"]
KLEstimator = Literal["k3", "k3+", "k2"]
PoseRatio = Literal["sum", "sqrt", "mean", "per_joint"]

# exp(20) is finite in float32 with room for sums and squares; verl and OpenRLHF clamp at the same value.
LOG_RATIO_LIMIT = 20.0


class Surrogate(NamedTuple):
    """value: (B,), to be maximised; log_ratio, weight, advantages: the averaged terms, in one shape, detached."""

    value: Tensor
    log_ratio: Tensor
    weight: Tensor
    advantages: Tensor


def clipped(log_ratio: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """min(r A, clip(r, 1 ± ε) A), elementwise. The gradient is A·r·∇log r, and exactly 0 where clipped."""
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)


def answer_surrogate(
    log_prob: Tensor, anchor: Tensor, mask: Tensor, advantages: Tensor, epsilon: float, level: RatioLevel
) -> Surrogate:
    """The discrete term: mean over the G answers of a group.

    Args:
        log_prob, anchor: (B, G, R) token log-probabilities under the policy (with gradient) and the ratio's anchor.
        mask: (B, G, R) bool, the tokens of each answer up to and including its first end token.
        advantages: (B, G), F̂ of eq. 16.
        level: `token`: one ratio per token, averaged over the answer (GRPO); `sequence`: the product over the
            answer, eq. 4 as written; `sequence_mean`: the geometric mean over the answer (GSPO).
    """
    log_ratio = torch.where(mask, log_prob - anchor.detach(), 0.0)
    length = mask.sum(-1)
    if level == "token":
        weight = mask.to(log_prob.dtype) / length.clamp(min=1)[..., None]
        spread = advantages[..., None].expand_as(log_ratio)
        value = (clipped(log_ratio, spread, epsilon) * weight).sum(-1).mean(-1)
        return Surrogate(value, log_ratio.detach(), weight, spread)
    log_ratio = log_ratio.sum(-1)
    if level == "sequence_mean":
        log_ratio = log_ratio / length.clamp(min=1)
    value = clipped(log_ratio, advantages, epsilon).mean(-1)
    return Surrogate(value, log_ratio.detach(), torch.ones_like(log_ratio), advantages)


def pose_surrogate(
    log_prob: Tensor,
    anchor: Tensor,
    valid: Tensor,
    factor_mask: Tensor,
    scale: Tensor,
    advantages: Tensor,
    epsilon: float,
) -> Surrogate:
    """The continuous term: mean over the K·V poses of a group; 0 for a group without a pose.

    Args:
        log_prob, anchor: (B, G, K, F) log-densities of the sampled poses, float32.
        valid: (B, G) bool, the V candidates whose answer has exactly one pose token.
        factor_mask: (B, F) bool, factors with labelled joints.
        scale: (B,), divides the log-ratio: 1, √d or d with d labelled numbers.
        advantages: (B, G, K), Δ̂ of eq. 16.
    """
    weight = (valid[:, :, None, None] & factor_mask[:, None, None, :]).to(log_prob.dtype).expand_as(log_prob)
    weight = weight / weight.sum((1, 2, 3), keepdim=True).clamp(min=1)
    log_ratio = torch.where(weight > 0, log_prob - anchor.detach(), 0.0) / scale[:, None, None, None]
    spread = advantages[..., None].expand_as(log_ratio)
    # Not `value * 0` for invalid entries: NaN * 0 is NaN, so the density of an absent pose could reach the sum.
    value = torch.where(weight > 0, clipped(log_ratio, spread, epsilon) * weight, 0.0).sum((1, 2, 3))
    return Surrogate(value, log_ratio.detach(), weight, spread)


def pose_ratio_scale(form: PoseRatio, numbers: Tensor) -> Tensor:
    """Divisor of the pose's log-ratio, (B,), for `numbers` (B,) labelled numbers; it decides where the ratio clips.

    Shifting the mean by δσ in each number spreads log r by δ√d: with d = 144, 40 % of the ratios leave 1 ± 0.2 at
    δ = 0.02. `sum` is eq. 4 as written; `sqrt` makes that spread δ for any d; `mean` makes it δ/√d, so that
    ε = 0.2 never clips (Flow-GRPO pairs it with ε of 1e-4); `per_joint` has 24 ratios of 6 numbers each.
    """
    numbers = numbers.float()
    return {
        "sum": torch.ones_like(numbers),
        "sqrt": numbers.sqrt(),
        "mean": numbers,
        "per_joint": torch.ones_like(numbers),
    }[form]


def pose_balance(form: PoseRatio, numbers: Tensor) -> Tensor:
    """Factor of the pose term, (B,), that makes the form of the ratio affect clipping only.

    Dividing a log-ratio divides its gradient too: at ratio 1 a pose's gradient is Δ̂·∇log N times 1, 1/√d, 1/d, and
    1/24 for the mean of 24 joints. With this factor it is Δ̂·∇log N/√d for every form, as it already is for `sqrt`. The
    norm of ∇log N grows with √d, so samples with few labelled joints weigh as much as others.
    """
    numbers = numbers.float()
    return {
        "sum": numbers.rsqrt(),
        "sqrt": torch.ones_like(numbers),
        "mean": numbers.sqrt(),
        "per_joint": numbers.sqrt() / 6,  # d/6 joints
    }[form]


def answer_kl(log_prob: Tensor, reference: Tensor, mask: Tensor, estimator: KLEstimator) -> Tensor:
    """KL(π_θ ‖ π_ref) of the tokens, (B,): mean over each answer's tokens, then over the G answers.

    With d = log π_ref - log π_θ of the sampled token: k3 = exp(d) - d - 1 (GRPO) is never negative, but its gradient is
    not that of the KL; k2 = d²/2 has the right gradient and a biased value; k3+ takes k3's value and k2's gradient.
    """
    d = torch.where(mask, reference.detach() - log_prob, 0.0).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    k2, k3 = d.square() / 2, d.exp() - d - 1
    value = {"k2": k2, "k3": k3, "k3+": k2 + (k3 - k2).detach()}[estimator]
    return (torch.where(mask, value, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)).mean(-1)


def pose_kl(kl: Tensor, valid: Tensor) -> Tensor:
    """Mean closed-form Gaussian KL of the V candidates with a pose: (B, G) → (B,); 0 where V = 0.

    Sampled estimators are far noisier at 144 numbers (k1's standard deviation is 1.2 at a true KL of 0.72).
    """
    return torch.where(valid, kl, 0.0).sum(1) / valid.sum(1).clamp(min=1)


def ratio_metrics(surrogate: Surrogate, epsilon: float) -> dict[str, float]:
    """Clip fractions (counted where clipping zeroes the gradient) and statistics of the log-ratio.

    `ess` is the effective sample size of the ratios as importance weights, 1 when all are equal.
    """
    weight = surrogate.weight / surrogate.weight.sum().clamp(min=1e-12)
    ratio = surrogate.log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    low = (ratio < 1 - epsilon) & (surrogate.advantages < 0)
    high = (ratio > 1 + epsilon) & (surrogate.advantages > 0)
    mean = (surrogate.log_ratio * weight).sum()
    first, second = (ratio * weight).sum(), (ratio.square() * weight).sum()
    numbers = {
        "clip_ratio/low_mean": (low * weight).sum(),
        "clip_ratio/high_mean": (high * weight).sum(),
        "clip_ratio/region_mean": ((low | high) * weight).sum(),
        "log_ratio_mean": mean,
        "log_ratio_std": ((surrogate.log_ratio - mean).square() * weight).sum().sqrt(),
        "log_ratio_max": torch.where(surrogate.weight > 0, surrogate.log_ratio.abs(), 0.0).max(),
        "ess": first.square() / second.clamp(min=1e-12),
    }
    return {name: float(value) for name, value in numbers.items()}
