"""The energy score of a group of draws, as a reward of each: a proper scoring rule instead of a distance.

    ES(P, y) = −E|p − y| + ½ E|p − p′|,   p, p′ independent draws of P          (Gneiting & Raftery 2007)

is highest in expectation for the true distribution of y: draws must lie near the truth *and* as far from each other as
the truth varies. A group of n draws gives it for free. In its estimate

    J = 1/n Σ_i −|p_i − y| + 1/(2 n (n − 1)) Σ_{i ≠ j} |p_i − p_j|

the terms that hold p_i are draw i's share, R_i / n, and a pair belongs to both of its draws, so that its ½ is gone:

    R_i = −|p_i − y| + 1/(n − 1) Σ_{j ≠ i} |p_i − p_j|

∇E[J] = E[Σ_i R_i/n ∇log π(p_i)], since a term without p_i is a constant there. Advantages take the group's mean off
R_i, and that mean holds p_i in its own share, and each of its pairs once more in the other's: in expectation it takes
1/n of the distance to y and 2/n of the pairs. With n − 2 in the place of n − 1 (`centred`) both lose the same part, and
the direction is exact.
"""

import torch
from torch import Tensor


def energy_shares(points: Tensor, truth: Tensor, valid: Tensor, centred: bool = True) -> Tensor:
    """R_i of every draw, in the unit of the points, (B, N); without meaning where not valid.

    Args:
        points: (B, N, J, D): what is compared of N draws; distances are means over J of distances in D dimensions,
            whose energy score is proper for each of the J. truth: (B, J, D). valid: (B, N) bool.
        centred: the mean of the shares will be taken off (advantages); False where a gradient goes through the draws.
            That gradient is of a draw's own place: summed over the draws it is n times the gradient of J.
    """
    error = (points - truth[:, None]).norm(dim=-1).mean(-1)
    own = points.transpose(1, 2)  # (B, J, N, D)
    exact = "donot_use_mm_for_euclid_dist"  # by matrix products, distances of near points would be rounding
    apart = torch.cdist(own, own.detach(), compute_mode=exact).mean(1)
    others = valid[:, None, :] & ~torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    count = valid.sum(1, keepdim=True) - (2 if centred else 1)
    return torch.where(others, apart, 0.0).sum(-1) / count.clamp(min=1) - error
