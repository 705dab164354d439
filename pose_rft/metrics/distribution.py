"""Quality metrics of a pose distribution: its best draws, its coverage, its density at the truth, its energy score.

The density is a Gaussian over a pose's 144 raw numbers (24 joints, six each), so there are two kinds of region:

- of a number: the central interval of its own (marginal) normal, |z| ≤ Φ⁻¹((1 + level) / 2), z = (truth − μ) / σ.
  `coverage_90` and the reliability diagram use these: the share of numbers whose 90 % interval contains the truth.
- of a joint: the ellipsoid of its six numbers, squared Mahalanobis distance ≤ the level's quantile of χ² with 6 degrees
  of freedom (`joint_coverage_90`). Stricter, as all six numbers have to fit jointly.

Distances between poses are mean joint distances in mm (as MPJPE). Nothing here draws samples or runs a model.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pose_rft.metrics.pose_error import MILLIMETRES

JOINT_NUMBERS = 6
FITTED_LEVEL = 0.90  # the level that post-hoc calibration fits
FEWEST = 20  # a joint with fewer samples keeps the scale 1


def best_of(errors: Tensor, n: int) -> Tensor:
    """Expected smallest error of n draws.

    Args:
        errors: (N, S), of S draws each.
    Returns:
        (N,), the mean over all subsets of n of the S draws: exact, and never larger for a larger n.
    Raises:
        ValueError: n is not in 1..S.
    """
    count = errors.shape[1]
    if not 1 <= n <= count:
        raise ValueError(f"best of {n} needs as many draws, got {count}")
    rank = torch.arange(1, count + 1, dtype=torch.float64, device=errors.device)
    others = _log_choose(count - rank, torch.full_like(rank, n - 1.0))  # the other n - 1 draws have larger errors
    weights = torch.where(count - rank >= n - 1, (others - others[0] + math.log(n / count)).exp(), 0.0)
    return (errors.double().sort(dim=1).values @ weights).to(errors.dtype)


def interval_level(z: Tensor) -> Tensor:
    """Level in [0, 1] of the smallest central interval of a standard normal that contains z, elementwise."""
    return torch.erf(z.abs() / math.sqrt(2))


def region_level(whitened: Tensor) -> Tensor:
    """Level in [0, 1] of the smallest ellipsoid of a joint that contains the truth.

    Args:
        whitened: (..., 6), the joint's deviation times the inverse square root of its 6 × 6 covariance.
    """
    squared = whitened.square().sum(-1)
    return torch.special.gammainc(torch.full_like(squared, JOINT_NUMBERS / 2), squared / 2)


def coverage(levels_of_truth: Tensor, level: float) -> float:
    """Share (0..1) of truths inside their region of `level`; NaN if empty. A calibrated model gives `level`."""
    return float((levels_of_truth <= level).double().mean())


def reliability(levels_of_truth: Tensor, levels: Sequence[float]) -> dict[float, float]:
    """{level: coverage}, the curve of the reliability diagram."""
    return {level: coverage(levels_of_truth, level) for level in levels}


def distances(draws: Tensor, target: Tensor) -> Tensor:
    """(N, S) mm, mean over joints, of draws (N, S, J, 3) from targets (N, J, 3), both in metres."""
    return (draws - target[:, None]).norm(dim=-1).mean(-1) * MILLIMETRES


def spread(draws: Tensor) -> Tensor:
    """Average pairwise distance of the draws, (N,) mm; 0 for a single draw.

    Args:
        draws: (N, S, J, 3) metres.
    """
    count = draws.shape[1]
    if count < 2:
        return draws.new_zeros(len(draws))
    by_joint = draws.transpose(1, 2).contiguous()  # (N, J, S, 3)
    exact = "donot_use_mm_for_euclid_dist"  # the faster mode loses small distances to rounding
    totals = [torch.cdist(one, one, compute_mode=exact).sum((-2, -1)).mean(-1) for one in by_joint]
    return torch.stack(totals) / (count * (count - 1)) * MILLIMETRES


def energy_score(to_truth: Tensor, between: Tensor) -> Tensor:
    """E d(X, truth) − ½ E d(X, X′), (N,) mm: a proper score, lower is better; for a point it is the error.

    Args:
        to_truth: (N, S), `distances`. between: (N,), `spread`.
    Source: Gneiting and Raftery 2007, section 4.3; as d is a mean over joints, so is the score.
    """
    return to_truth.mean(1) - 0.5 * between


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖m₁ − m₂‖² + tr(C₁ + C₂ − 2 (C₁ C₂)^½) of features (N, D) and (M, D), each modelled as a Gaussian.

    It is biased upwards unless N and M are several times D: compare runs on one test set, not test sets.
    Raises:
        ValueError: fewer than two samples.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a covariance needs two samples")
    first, second = first.double(), second.double()
    shift = (first.mean(0) - second.mean(0)).square().sum()
    one, other = torch.atleast_2d(first.T.cov()), torch.atleast_2d(second.T.cov())
    values, vectors = torch.linalg.eigh(one)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    return float(shift + one.trace() + other.trace() - 2 * cross)


def diversity(features: Tensor) -> float:
    """Mean distance between two different rows of (N, D), N ≥ 2."""
    return float(torch.pdist(features.double()).mean())


def sigma_scales(z: Tensor, counted: Tensor) -> Tensor:
    """Factors for each joint's σ with which its 90 % intervals contain 90 % of these truths.

    Args:
        z: (N, 24, 6) standardised deviations. counted: (N, 24) bool, joints with a known truth.
    Returns:
        (24,): the 90 % quantile of |z| over that of a standard normal; 1 for joints with fewer than 20 truths.
    A quantile instead of maximum likelihood (the root mean square of z): a few people predicted facing backwards have
    z of ten and more, and would widen everyone's intervals.
    """
    normal = math.sqrt(2) * float(torch.erfinv(torch.tensor(FITTED_LEVEL, dtype=torch.float64)))
    scales = torch.ones(z.shape[1], dtype=torch.float64)
    for joint in range(z.shape[1]):
        own = z[counted[:, joint], joint].double().abs().flatten()
        if int(counted[:, joint].sum()) >= FEWEST:
            scales[joint] = float(own.quantile(FITTED_LEVEL)) / normal
    return scales


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
