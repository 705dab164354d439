"""How a reward reaches the pose head: by the score function, through the draws, at the mean pose, or by preference.

| `rft.pose_gradient` | the pose term, to be maximised | what moves σ |
|---|---|---|
| score | eq. 6: min(r Δ̂, clip(r) Δ̂) of drawn poses (`objective.pose_surrogate`) | the reward |
| pathwise | the rewards of p = μ + σ ε themselves, through a differentiable reward | the reward |
| mean | the reward of μ: a plain gradient, no draws | nothing but the KL |
| dpo | log-sigmoid of β times how much likelier the best draw became than the worst | the reward |

score and pathwise are two estimates of the gradient of E[R]; arXiv 2605.14297 mixes them for hybrid actions. To make
them interchangeable at one weight, rewards are divided by the group's standard deviation, as in Δ̂, and by √d, as in
`objective.pose_balance`: in expectation both then give the same update. DPO: arXiv 2305.18290.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

PoseGradient = Literal["score", "pathwise", "mean", "dpo"]


def reward_value(rewards: Tensor, valid: Tensor, unit: Tensor, numbers: Tensor) -> Tensor:
    """Mean reward of a group's poses, scaled by `unit` and 1/√d, (B,); 0 for a group without a pose.

    Args:
        rewards: (B, G, K) with gradient; valid: (B, G) bool; unit: (B,), what one unit of reward is worth
            (`Advantages.unit`); numbers: (B,), how many labelled numbers d the pose has.
    """
    kept = torch.where(valid[..., None], rewards, 0.0)  # not times 0: rewards of absent poses may be NaN
    count = valid.sum(1).clamp(min=1) * rewards.shape[-1]
    return kept.sum((1, 2)) / count * unit / numbers.clamp(min=1).sqrt()


def preference(log_prob: Tensor, reference: Tensor, advantages: Tensor, valid: Tensor, beta: float) -> Tensor:
    """log σ(β [(log π − log π_ref)(best) − (log π − log π_ref)(worst)]) of a group's poses, (B,): minus DPO's loss.

    Args:
        log_prob: (B, G, K) with gradient; reference: (B, G, K); advantages: (B, G, K), all 0 in a group with equal
            rewards, whose value is 0 without gradient; valid: (B, G) bool.
    """
    away = ~valid[..., None].expand_as(advantages).flatten(1)
    ranks = advantages.flatten(1)
    best = ranks.masked_fill(away, -torch.inf).argmax(1, keepdim=True)
    worst = ranks.masked_fill(away, torch.inf).argmin(1, keepdim=True)
    gained = (log_prob - reference.detach()).flatten(1)
    value = F.logsigmoid(beta * (gained.gather(1, best) - gained.gather(1, worst)))[:, 0]
    return torch.where((ranks != 0).any(1), value, 0.0)
