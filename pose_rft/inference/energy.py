"""The energy score of a group of draws as a reward for each draw: a proper scoring rule instead of a distance.

    ES(P, y) = −E|p − y| + ½ E|p − p′|,   p, p′ independent draws of P          (Gneiting & Raftery 2007)

is highest in expectation for the true distribution of y: draws must lie near the truth *and* as far from each other as
the truth varies. A group of n draws provides the estimate at no extra cost:

    J = 1/n Σ_i −|p_i − y| + 1/(2 n (n − 1)) Σ_{i ≠ j} |p_i − p_j|

The terms of J that contain p_i form draw i's share, R_i / n. A pair counts for both of its draws, which cancels the ½:

    R_i = −|p_i − y| + 1/(n − 1) Σ_{j ≠ i} |p_i − p_j|

∇E[J] = E[Σ_i R_i/n ∇log π(p_i)], since terms without p_i are constant there. Advantages subtract the group's mean from
R_i. That mean contains p_i in its own share and each of its pairs once more in the other draw's share, so in
expectation the subtraction removes 1/n of the distance to y and 2/n of the pairs. With n − 2 instead of n − 1
(`centred`) both lose the same fraction, and the direction of the gradient is exact.
"""

import torch
from torch import Tensor


def energy_shares(points: Tensor, truth: Tensor, valid: Tensor, centred: bool = True) -> Tensor:
    """R_i of every draw, (B, N), in the unit of the points; undefined where `valid` is False.

    Args:
        points: (B, N, J, D), the points of N draws; the distance of two draws is the mean over J of distances in D
            dimensions, so the energy score is proper for each of the J points. truth: (B, J, D). valid: (B, N) bool.
        centred: True if the mean share is subtracted later (advantages); False if gradients flow through the draws.
            The gradient reaches only the draw's own points: summed over the draws it is n times the gradient of J.
    """
    error = (points - truth[:, None]).norm(dim=-1).mean(-1)
    own = points.transpose(1, 2)  # (B, J, N, D)
    exact = "donot_use_mm_for_euclid_dist"  # matrix products would lose the distances of near points to rounding
    apart = torch.cdist(own, own.detach(), compute_mode=exact).mean(1)
    others = valid[:, None, :] & ~torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    count = valid.sum(1, keepdim=True) - (2 if centred else 1)
    return torch.where(others, apart, 0.0).sum(-1) / count.clamp(min=1) - error
