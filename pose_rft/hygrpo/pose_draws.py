"""The Gaussian noise behind the poses of a group: independent, or orthogonal within the group.

A likelihood-ratio gradient sees one number per pose, its advantage. A reward change along one direction of the noise
shows in all N poses, where it acts as noise on the other directions. If the reward is linear in the D numbers of a
pose, with slope g, the estimate of g has the variance

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
    """(B, G, K, D) standard normal numbers; each group has its own generator.

    Args:
        shape: (G candidates, K poses per candidate, D numbers per pose).
    """
    groups = [torch.randn(shape, generator=generator, device=generator.device) for generator in generators]
    noise = torch.stack(groups)
    return noise if form == "independent" else orthogonal(noise.flatten(1, 2)).view_as(noise)


def orthogonal(noise: Tensor) -> Tensor:
    """Makes each block of D rows of (B, N, D) mutually orthogonal; keeps the length of every row.

    The directions come from Gram-Schmidt and do not depend on the lengths, so each row stays standard normal.
    """
    return torch.cat([_at_right_angles(rows) for rows in noise.split(noise.shape[-1], 1)], 1)


def _at_right_angles(rows: Tensor) -> Tensor:
    q, r = torch.linalg.qr(rows.mT)
    directions = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # Householder QR may flip a direction
    return directions.mT * rows.norm(dim=-1, keepdim=True)
