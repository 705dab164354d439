import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pose_rft.hygrpo.spread import entropy_lost, split_kl
from pose_rft.policy.pose_head import PoseDistribution

ALL = torch.ones(2, 24, dtype=torch.bool)


def distribution(seed: int, rank: int = 0) -> PoseDistribution:
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = torch.randn(2, 144, generator=generator), 0.2 * torch.randn(2, 144, generator=generator) - 2
    factor = 0.1 * torch.randn(2, 144, rank, generator=generator) if rank else None
    return PoseDistribution(mean, log_std, factor)


@pytest.mark.parametrize("rank", [0, 3])
def test_the_two_parts_are_the_whole_kl(rank):
    one, other = distribution(0, rank), distribution(1, rank)
    parts = split_kl(one, other, ALL)
    torch.testing.assert_close(parts.mean + parts.spread, one.kl(other, ALL), rtol=1e-4, atol=1e-2)


def test_each_part_is_the_kl_of_what_it_is_named_after():
    one, other = distribution(0), distribution(1)
    parts = split_kl(one, other, ALL)
    moved = kl_divergence(Normal(one.mean, other.std()), Normal(other.mean, other.std())).sum(1)
    spread = kl_divergence(Normal(other.mean, one.std()), Normal(other.mean, other.std())).sum(1)
    torch.testing.assert_close(parts.mean, moved)
    torch.testing.assert_close(parts.spread, spread, rtol=1e-4, atol=1e-4)


def test_equal_distributions_have_parts_of_exactly_zero():
    one = distribution(0)
    parts = split_kl(one, distribution(0), ALL)
    assert not parts.mean.any() and not parts.spread.any()


def test_only_lost_entropy_costs_and_only_it_has_a_gradient():
    reference = distribution(0)
    for shift, expected in ((0.3, 0.0), (-0.3, 0.3 * 144)):
        log_std = (reference.log_std + shift).requires_grad_()
        lost = entropy_lost(PoseDistribution(reference.mean, log_std), reference, ALL)
        assert lost.tolist() == pytest.approx([expected] * 2, rel=1e-4)
        (gradient,) = torch.autograd.grad(lost.sum(), log_std)
        assert bool(gradient.any()) == (shift < 0) and (gradient <= 0).all()
