"""Group-relative advantages for the two action branches (paper eq. 16).

Text rewards are normalised over the G candidates of a group; pose rewards over all poses of the group's V candidates
that have one (V poses with one pose per answer, K·V with K). The paper writes G under both sums, but a candidate
without a pose has no pose reward, so it is excluded (`group_advantages` with `valid`).

A group with equal rewards gets advantages of exactly zero. "Equal" is judged with a relative tolerance: float32 rewards
carry a rounding error of about 1e-7 of their size, which a bare z-score, or one with a tiny additive epsilon, inflates
to advantages near one. Standard deviations are unbiased (n - 1), as in TRL, verl and VLM-R1: of four rewards with one
winner, the winner gets 1.5 (1.73 with n).

`rloo` subtracts the mean of the other members and does not divide (leave-one-out, arXiv 2402.14740). It is an unbiased
estimate of the gradient of the mean reward itself, in which groups with more varied rewards count more.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

AdvantageForm = Literal["z_score", "rloo"]


class Advantages(NamedTuple):
    """values: shaped as the rewards, float32, 0 where not valid; informative (B,) bool: the group's rewards differ;
    unit (B,): the advantage that one unit of reward is worth, 0 where the rewards are equal."""

    values: Tensor
    informative: Tensor
    unit: Tensor

    def times(self, weight: Tensor) -> "Advantages":
        """The advantages scaled by a weight for each group, (B,)."""
        return Advantages(self.values * weight[:, None], self.informative, self.unit * weight)


@torch.no_grad()
def group_advantages(rewards: Tensor, valid: Tensor, std_floor: float, form: AdvantageForm = "z_score") -> Advantages:
    """(R - mean) / std inside each group, over its valid members; `rloo`: R - mean of the other members.

    Args:
        rewards: (B, N), any unit; entries that are not valid may be NaN.
        valid: (B, N) bool.
        std_floor: a standard deviation of at most `std_floor` times the group's largest absolute reward counts as zero.
    Raises:
        ValueError: a valid reward is not finite, or the shapes differ.
    """
    if rewards.shape != valid.shape or rewards.ndim != 2:
        raise ValueError(f"rewards {tuple(rewards.shape)} and valid {tuple(valid.shape)} must be one (B, N) shape")
    exact = torch.where(valid, rewards, 0.0).double()
    if not exact.isfinite().all():
        raise ValueError("a valid reward is not finite")
    count = valid.sum(1, keepdim=True)
    mean = exact.sum(1, keepdim=True) / count.clamp(min=1)
    deviation = torch.where(valid, exact - mean, 0.0)
    std = (deviation.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    largest = exact.abs().amax(1, keepdim=True)
    informative = (count >= 2) & (std > std_floor * largest)
    if form == "rloo":
        unit = torch.ones_like(std)
        deviation = deviation * count / (count - 1).clamp(min=1)  # R - mean of the others = n/(n - 1) (R - mean)
    else:
        unit = 1 / std.clamp(min=torch.finfo(torch.float64).tiny)
    unit = torch.where(informative, unit, 0.0)
    return Advantages((deviation * unit).float(), informative[:, 0], unit[:, 0].float())
