"""The standard normal numbers behind the poses of a group: drawn one by one, or at right angles to each other.

A likelihood-ratio gradient knows of each pose one number, its advantage. A change of the reward along one direction of
the noise is heard in all N poses, and what it says about the other directions is noise: with a reward that is linear in
the D numbers of a pose and has the slope g, the estimate of g has the variance

    (D + 1) / N |g|²  for independent poses,      ((D + 2) / N - 1) |g|²  for N <= D orthogonal ones,

so a full basis, N = D, leaves 2 / D of |g|² where independent draws leave all of it. Each pose alone is distributed
exactly as before, so the estimate stays unbiased (orthogonal evolution strategies, Choromanski et al. 2018, arXiv
1804.02395; orthogonally coupled Monte Carlo, Rowland et al. 2018).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

PoseDraws = Literal["independent", "orthogonal"]


def pose_noise(form: PoseDraws, shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """(B, G, K, D) standard normal numbers, each group's from a generator of its own.

    Args:
        shape: G candidates, K poses of each, D numbers of a pose.
    """
    groups = [torch.randn(shape, generator=generator, device=generator.device) for generator in generators]
    noise = torch.stack(groups)
    return noise if form == "independent" else orthogonal(noise.flatten(1, 2)).view_as(noise)


def orthogonal(noise: Tensor) -> Tensor:
    """(B, N, D) → the same lengths, and within each D rows in turn the directions at right angles.

    Directions are Gram-Schmidt's, which do not depend on the lengths: so a row of normal numbers is still one.
    """
    return torch.cat([_at_right_angles(rows) for rows in noise.split(noise.shape[-1], 1)], 1)


def _at_right_angles(rows: Tensor) -> Tensor:
    q, r = torch.linalg.qr(rows.mT)
    directions = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # Householder's may point backwards
    return directions.mT * rows.norm(dim=-1, keepdim=True)
