"""Regularisers that keep a pose distribution from collapsing to a point: the KL in two parts, and the lost entropy.

A reward of each draw alone is highest for a single pose: in expectation the best σ is 0, and a policy that maximises
the reward loses its uncertainty. KL(π ‖ π_ref) of two Gaussians is the sum of two parts,

    ½ (μ − μ₀)ᵀ Σ₀⁻¹ (μ − μ₀)      how far the mean moved (`beta_pose`), and
    KL(N(μ₀, Σ) ‖ N(μ₀, Σ₀))       how the spread changed (`beta_spread`),

so that the spread can be held more tightly than the mean. Everything is in nats per pose.
"""

from typing import NamedTuple

from torch import Tensor

from pose_rft.policy.pose_head import PoseDistribution


class PoseKL(NamedTuple):
    """The two parts of the KL, each (N,)."""

    mean: Tensor
    spread: Tensor


def split_kl(poses: PoseDistribution, reference: PoseDistribution, mask: Tensor) -> PoseKL:
    """KL(poses ‖ reference) over labelled joints (N, 24), in two parts, exactly 0 for equal diagonal Gaussians."""
    moved = PoseDistribution(poses.mean, reference.log_std, reference.factor)
    spread = PoseDistribution(reference.mean, poses.log_std, poses.factor)
    return PoseKL(moved.kl(reference, mask), spread.kl(reference, mask))


def entropy_lost(poses: PoseDistribution, reference: PoseDistribution, mask: Tensor) -> Tensor:
    """max(0, H(reference) − H(poses)), (N,): a floor on the entropy, without effect on poses above it."""
    return (reference.entropy(mask) - poses.entropy(mask)).clamp(min=0.0)
