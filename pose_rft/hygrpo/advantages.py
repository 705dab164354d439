"""Group-relative advantages for the two action branches (paper eq. 16).

Text rewards are normalised over the G candidates of a group; pose rewards over all poses of the group's V candidates
that carry one (V poses with one pose per answer, K·V with K). The paper writes G under both sums, but a candidate
without a pose has no pose reward, so it takes no part (`group_advantages` with `valid`).

A group whose rewards do not differ prefers nothing and gets exactly zero. "Do not differ" is relative: rewards from
float32 arithmetic carry a residue of about 1e-7 of their size, which a bare z-score, or one with a tiny additive
epsilon, blows up to advantages near one. Deviations are unbiased (n - 1), as in TRL, verl and VLM-R1: four rewards
with one winner give the winner 1.5 (1.73 with n).

`rloo` takes the mean of the others off and divides by nothing (leave-one-out, arXiv 2402.14740): an unbiased estimate
of the gradient of the mean reward itself, in which a group whose rewards differ more counts more.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

AdvantageForm = Literal["z_score", "rloo"]


class Advantages(NamedTuple):
    """values: as the rewards, float32, 0 where not valid; informative (B,) bool: the group's rewards differ; unit (B,):
    what one unit of reward is worth in them, 0 where nothing is preferred."""

    values: Tensor
    informative: Tensor
    unit: Tensor

    def times(self, weight: Tensor) -> "Advantages":
        """Of groups that count more or less, weight (B,)."""
        return Advantages(self.values * weight[:, None], self.informative, self.unit * weight)


@torch.no_grad()
def group_advantages(rewards: Tensor, valid: Tensor, std_floor: float, form: AdvantageForm = "z_score") -> Advantages:
    """(R - mean) / std inside each group, over its valid members; `rloo`: R - mean of the other members.

    Args:
        rewards: (B, N), any unit; entries that are not valid may be NaN.
        valid: (B, N) bool.
        std_floor: a deviation at or below `std_floor` times the group's largest absolute reward counts as none.
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
