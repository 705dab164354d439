"""The metrics of a distribution against closed forms."""

import itertools
import math

import pytest
import torch

from pose_rft.metrics import distribution

DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def test_best_of_n_is_the_mean_over_all_choices_of_n_draws():
    errors = normal(3, 7).abs()
    for n in range(1, 8):
        chosen = [errors[:, list(some)].min(1).values for some in itertools.combinations(range(7), n)]
        torch.testing.assert_close(distribution.best_of(errors, n), torch.stack(chosen).mean(0))


def test_best_of_n_never_grows_with_n_and_ends_at_the_smallest():
    errors = normal(5, 100).abs()
    found = torch.stack([distribution.best_of(errors, n) for n in range(1, 101)])
    assert (found.diff(dim=0) <= 0).all()
    torch.testing.assert_close(found[0], errors.mean(1))
    torch.testing.assert_close(found[-1], errors.min(1).values)
    for n in (0, 101):
        with pytest.raises(ValueError, match="needs as many draws"):
            distribution.best_of(errors, n)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.9])
def test_draws_of_the_density_itself_are_covered_as_often_as_the_level_says(level):
    z = normal(40_000, 6)
    assert distribution.coverage(distribution.interval_level(z), level) == pytest.approx(level, abs=0.006)
    assert distribution.coverage(distribution.region_level(z), level) == pytest.approx(level, abs=0.012)
    assert distribution.coverage(distribution.interval_level(2 * z), level) < level - 0.1


def test_levels_are_those_of_the_tables_of_the_normal_and_of_chi_square():
    z = torch.tensor([0.6744898, 0.9944579, 1.6448536], dtype=DOUBLE)
    torch.testing.assert_close(distribution.interval_level(-z), torch.tensor([0.5, 0.68, 0.9], dtype=DOUBLE))
    edge = torch.zeros(1, 6, dtype=DOUBLE)
    edge[0, 2] = math.sqrt(10.644641)  # 90 % of χ² with 6 degrees of freedom
    assert float(distribution.region_level(edge)) == pytest.approx(0.9, abs=1e-6)


def test_the_energy_score_of_one_joint_on_a_line_is_the_closed_form_of_the_normals_score():
    sigma, truth, count = 0.02, 0.03, 4000  # metres
    draws = torch.zeros(1, count, 1, 3, dtype=DOUBLE)
    draws[0, :, 0, 0] = sigma * normal(count)
    target = torch.zeros(1, 1, 3, dtype=DOUBLE)
    target[..., 0] = truth
    z = truth / sigma
    density, mass = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    expected = 1000 * sigma * (z * (2 * mass - 1) + 2 * density - 1 / math.sqrt(math.pi))
    between = distribution.spread(draws)
    assert float(between) == pytest.approx(1000 * sigma * 2 / math.sqrt(math.pi), rel=0.03)
    score = distribution.energy_score(distribution.distances(draws, target), between)
    assert float(score) == pytest.approx(expected, rel=0.03)


def test_the_energy_score_is_proper_and_of_a_point_the_error():
    truth = normal(400, 1, 3)
    draws = {s: s * normal(400, 60, 1, 3, seed=1) for s in (0.2, 1.0, 3.0)}
    scores = {
        s: float(distribution.energy_score(distribution.distances(d, truth), distribution.spread(d)).mean())
        for s, d in draws.items()
    }
    assert scores[1.0] < scores[0.2] and scores[1.0] < scores[3.0], "the density that the truth came from is best"
    point = torch.zeros(400, 1, 1, 3, dtype=DOUBLE)
    errors = distribution.distances(point, truth)
    assert torch.equal(distribution.energy_score(errors, distribution.spread(point)), errors[:, 0])


def test_the_frechet_distance_is_the_closed_form_of_two_gaussians():
    first = normal(60_000, 3)
    scale, shift = torch.tensor([1.0, 2.0, 0.5], dtype=DOUBLE), torch.tensor([1.0, 0.0, -2.0], dtype=DOUBLE)
    second = normal(60_000, 3, seed=1) * scale + shift
    expected = float(shift.square().sum() + (1 - scale).square().sum())
    assert distribution.frechet_distance(first, second) == pytest.approx(expected, rel=0.02)
    assert distribution.frechet_distance(first, first) == pytest.approx(0.0, abs=1e-6)
    turn, _ = torch.linalg.qr(normal(3, 3, seed=2))
    turned = distribution.frechet_distance(first @ turn, second @ turn)
    assert turned == pytest.approx(distribution.frechet_distance(first, second), rel=1e-6)


def test_diversity_is_the_mean_distance_between_two():
    assert distribution.diversity(torch.tensor([[0.0], [3.0], [6.0]])) == pytest.approx((3 + 6 + 3) / 3)


@pytest.mark.parametrize("true_scale", [0.4, 1.0, 5.0])
def test_after_calibration_ninety_percent_intervals_hold_about_ninety_percent(true_scale):
    fitted_on, held_out = true_scale * normal(150, 24, 6), true_scale * normal(300, 24, 6, seed=1)
    scales = distribution.sigma_scales(fitted_on, torch.ones(150, 24, dtype=torch.bool))
    found = distribution.interval_level(held_out / scales[:, None])
    assert 0.85 < distribution.coverage(found, 0.9) < 0.95
    for joint in range(24):
        assert 0.85 < distribution.coverage(found[:, joint], 0.9) < 0.95


def test_a_few_people_taken_the_wrong_way_round_do_not_widen_everyones_intervals():
    z = normal(200, 24, 6)
    z[:4] *= 40
    scales = distribution.sigma_scales(z, torch.ones(200, 24, dtype=torch.bool))
    assert scales.max() < 1.3 and z.square().mean().sqrt() > 5


def test_joints_that_no_source_labels_keep_their_sigma():
    counted = torch.ones(50, 24, dtype=torch.bool)
    counted[:, 22:] = False
    counted[19:, 5] = False
    scales = distribution.sigma_scales(3 * normal(50, 24, 6), counted)
    assert scales[22:].tolist() == [1.0, 1.0] and scales[5] == 1.0 and (scales[:5] > 2).all()
