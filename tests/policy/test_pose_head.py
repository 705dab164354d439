"""The pose distribution against torch.distributions, closed forms and Monte Carlo."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pose_rft.errors import PoseRftError
from pose_rft.policy.pose_head import PoseDistribution

N, K = 3, 4


def distribution(rank: int = 0, seed: int = 0) -> PoseDistribution:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(N, 144, generator=generator)
    log_std = -2 + 0.5 * torch.randn(N, 144, generator=generator)
    return PoseDistribution(mean, log_std, 0.1 * torch.randn(N, 144, rank, generator=generator) if rank else None)


def hands_unlabelled() -> Tensor:
    mask = torch.ones(N, 24, dtype=torch.bool)
    mask[1:, 22:] = False
    return mask


def numbers(mask: Tensor) -> Tensor:
    return mask.repeat_interleave(6, -1)


def dense(p: PoseDistribution, i: int, keep: Tensor) -> MultivariateNormal:
    """The marginal over the kept numbers, by the book and in double precision."""
    assert p.log_std is not None and p.factor is not None
    factor = p.factor[i].double()
    covariance = torch.diag((2 * p.log_std[i].double()).exp()) + factor @ factor.T
    return MultivariateNormal(p.mean[i, keep].double(), covariance[keep][:, keep])


def test_diagonal_log_prob_is_the_normal_log_prob_of_the_labelled_numbers() -> None:
    p, mask = distribution(), hands_unlabelled()
    assert p.log_std is not None
    x = p.sample(torch.Generator().manual_seed(1), K)
    expected = Normal(p.mean[:, None], p.log_std.exp()[:, None]).log_prob(x)
    assert torch.allclose(p.log_prob(x), expected.sum(-1), atol=1e-3)
    assert torch.allclose(p.log_prob(x, mask), (expected * numbers(mask)[:, None]).sum(-1), atol=1e-3)
    assert torch.allclose(p.log_prob(x[:, 0], mask), p.log_prob(x, mask)[:, 0])


def test_log_prob_is_the_sum_over_joints() -> None:
    p, mask = distribution(), hands_unlabelled()
    x = p.sample(torch.Generator().manual_seed(1), K)
    joints = p.joint_log_prob(x, mask)
    assert joints.shape == (N, K, 24)
    assert torch.equal(joints[1:, :, 22:], torch.zeros(N - 1, K, 2))
    assert torch.allclose(joints.sum(-1), p.log_prob(x, mask))


def test_low_rank_log_prob_entropy_and_kl_equal_the_dense_gaussian_on_the_labelled_numbers() -> None:
    p, q, mask = distribution(rank=3), distribution(rank=3, seed=5), hands_unlabelled()
    x = p.sample(torch.Generator().manual_seed(1), K)
    keep = numbers(mask)
    for i in range(N):
        own, other = dense(p, i, keep[i]), dense(q, i, keep[i])
        assert torch.allclose(p.log_prob(x, mask)[i].double(), own.log_prob(x[i][:, keep[i]].double()), atol=2e-3)
        assert torch.allclose(p.entropy(mask)[i].double(), own.entropy(), atol=1e-3)
        divergence = torch.distributions.kl_divergence(own, other)
        assert torch.allclose(p.kl(q, mask)[i].double(), divergence, rtol=1e-4)


@pytest.mark.parametrize("rank", [0, 3])
def test_unlabelled_joints_contribute_nothing_and_get_no_gradient(rank: int) -> None:
    mask = hands_unlabelled()
    p, q = distribution(rank), distribution(rank, seed=7)
    x = p.sample(torch.Generator().manual_seed(1), K)
    other = x + 100.0 * ~numbers(mask)[:, None]
    assert torch.equal(p.log_prob(x, mask), p.log_prob(other, mask))
    mean = p.mean.clone().requires_grad_()
    moved = PoseDistribution(mean, p.log_std, p.factor)
    (moved.log_prob(other, mask).sum() + moved.kl(q, mask).sum()).backward()
    assert mean.grad is not None
    assert torch.equal(mean.grad[~numbers(mask)], torch.zeros(12 * (N - 1)))
    assert bool((mean.grad[numbers(mask)] != 0).all())


def test_kl_to_itself_is_exactly_zero_with_zero_gradient() -> None:
    p = distribution()
    assert p.log_std is not None
    mean, log_std = p.mean.clone().requires_grad_(), p.log_std.clone().requires_grad_()
    divergence = PoseDistribution(mean, log_std).kl(p)
    divergence.sum().backward()
    assert torch.equal(divergence, torch.zeros(N))
    assert mean.grad is not None and log_std.grad is not None
    assert torch.equal(mean.grad, torch.zeros(N, 144))
    assert torch.equal(log_std.grad, torch.zeros(N, 144))


@pytest.mark.parametrize("rank", [0, 2])
def test_kl_is_the_mean_log_ratio_of_samples_in_the_right_direction(rank: int) -> None:
    p = distribution(rank)
    assert p.log_std is not None
    q = PoseDistribution(p.mean + 0.03, p.log_std + 0.2, p.factor)
    mask = hands_unlabelled()
    x = p.sample(torch.Generator().manual_seed(3), 8_000)
    ratio = p.log_prob(x, mask) - q.log_prob(x, mask)
    error = ratio.std(1) / 8_000**0.5
    assert bool(((ratio.mean(1) - p.kl(q, mask)).abs() < 4 * error + 1e-3).all())
    assert bool(((p.kl(q, mask) - q.kl(p, mask)).abs() > 20 * error).all())  # the other direction is another number


@pytest.mark.parametrize("rank", [0, 2])
def test_samples_have_the_stated_mean_and_deviation(rank: int) -> None:
    p = distribution(rank)
    x = p.sample(torch.Generator().manual_seed(4), 20_000)
    assert torch.allclose(x.mean(1), p.mean, atol=0.02)
    assert torch.allclose(x.std(1), p.std(), rtol=0.05)


def test_a_point_has_samples_but_no_density() -> None:
    point = PoseDistribution(torch.randn(N, 144))
    assert torch.equal(point.sample(torch.Generator(), 2)[:, 1], point.mean)
    for use in (lambda: point.log_prob(point.mean), lambda: point.kl(point), point.entropy):
        with pytest.raises(PoseRftError, match="gaussian"):
            use()


def test_joints_of_a_low_rank_distribution_have_no_density_of_their_own() -> None:
    p = distribution(rank=2)
    with pytest.raises(PoseRftError, match="diagonal"):
        p.joint_log_prob(p.mean)
