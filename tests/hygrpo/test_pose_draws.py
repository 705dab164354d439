"""Orthogonal noise is standard normal row by row, and hears a linear reward with the variance that theory says."""

import pytest
import torch

from pose_rft.hygrpo.pose_draws import orthogonal, pose_noise

D = 12


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slope_error(noise: torch.Tensor) -> float:
    """Variance of the estimated slope of a linear reward, in units of |slope|²; noise (M, N, D), M estimates."""
    slope = normal(D)
    estimates = ((noise @ slope)[..., None] * noise).mean(1)
    assert torch.allclose(estimates.mean(0), slope, atol=0.05), "unbiased"
    return float((estimates - slope).square().sum(-1).mean() / slope.square().sum())


@pytest.mark.parametrize("rows", [1, 5, D])
def test_rows_are_at_right_angles_and_keep_their_lengths(rows):
    noise = normal(3, rows, D)
    made = orthogonal(noise)
    products = made @ made.mT
    assert torch.allclose(products, torch.diag_embed(noise.square().sum(-1)), atol=1e-12)
    assert torch.allclose(made[:, 0], noise[:, 0]), "the first row has nothing to be at right angles to"
    assert ((made * noise).sum(-1) > 0).all(), "a row keeps to the side that it was drawn on"


def test_more_rows_than_numbers_are_blocks_of_a_basis_each():
    noise = normal(2, 2 * D + 3, D)
    made = orthogonal(noise)
    for first in range(0, 2 * D + 3, D):
        assert torch.allclose(made[:, first : first + D], orthogonal(noise[:, first : first + D]))


def test_each_row_alone_is_standard_normal():
    made = orthogonal(normal(40_000, D, D))
    for row in (0, D // 2, D - 1):
        alone = made[:, row]
        assert torch.allclose(alone.mean(0), torch.zeros(D, dtype=torch.float64), atol=0.03)
        assert torch.allclose(alone.T.cov(), torch.eye(D, dtype=torch.float64), atol=0.04)
        assert torch.allclose(alone.pow(4).mean(0), torch.full((D,), 3.0, dtype=torch.float64), atol=0.2)


@pytest.mark.parametrize("rows", [3, 6, D])
def test_the_slope_of_a_linear_reward_is_heard_with_the_variance_of_the_formula(rows):
    noise = normal(20_000, rows, D)
    assert slope_error(noise) == pytest.approx((D + 1) / rows, rel=0.05)
    assert slope_error(orthogonal(noise)) == pytest.approx((D + 2) / rows - 1, rel=0.05)


def test_a_group_draws_the_same_numbers_in_any_company_and_across_its_candidates():
    shape = (2, 3, D)
    for form in ("independent", "orthogonal"):
        both = pose_noise(form, shape, generators(7, 8))
        assert both.shape == (2, *shape)
        assert torch.allclose(pose_noise(form, shape, generators(8))[0], both[1])
    rows = both[0].flatten(0, 1)
    assert torch.allclose(rows @ rows.T, torch.diag(rows.square().sum(-1)), atol=1e-4), "candidates share one basis"
    assert torch.equal(
        pose_noise("independent", shape, generators(7))[0], torch.randn(shape, generator=generators(7)[0])
    )
