"""The energy score: whose share a pair is, what it prefers, and that its gradient is the score's own."""

import pytest
import torch

from pose_rft.inference.energy import energy_shares

WHOLE = torch.ones(1, 400, dtype=torch.bool)


def score(points: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """J of the module's docstring, pair by pair."""
    n = len(points)
    near = -torch.stack([(p - truth).norm(dim=-1).mean() for p in points]).mean()
    pairs = [(points[i] - points[j]).norm(dim=-1).mean() for i in range(n) for j in range(n) if i != j]
    return near + torch.stack(pairs).sum() / (2 * n * (n - 1))


def test_a_draws_share_is_the_part_of_the_score_that_changes_with_it():
    generator = torch.Generator().manual_seed(0)
    points, truth = torch.randn(6, 3, 2, generator=generator), torch.randn(3, 2, generator=generator)
    shares = energy_shares(points[None], truth[None], torch.ones(1, 6, dtype=torch.bool), centred=False)[0]
    for draw in range(6):
        moved = points.clone()
        moved[draw] += torch.randn(3, 2, generator=generator)
        after = energy_shares(moved[None], truth[None], torch.ones(1, 6, dtype=torch.bool), centred=False)[0]
        change = 6 * (score(moved, truth) - score(points, truth))
        assert after[draw] - shares[draw] == pytest.approx(float(change), abs=1e-5)


def test_the_gradient_through_the_draws_is_that_of_the_score():
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    truth = torch.zeros(2, 3, dtype=torch.float64)
    shares = energy_shares(points[None], truth[None], torch.ones(1, 5, dtype=torch.bool), centred=False)
    (found,) = torch.autograd.grad(shares.mean(), points)
    (expected,) = torch.autograd.grad(score(points, truth), points)
    torch.testing.assert_close(found, expected)


def mean_reward(deviation: float, centre: float = 0.0) -> float:
    """Mean energy score of 400 draws N(centre, deviation²) of one number, over truths of N(0, 1)."""
    generator = torch.Generator().manual_seed(2)
    truths = torch.randn(800, 1, 1, generator=generator)
    draws = centre + deviation * torch.randn(400, generator=generator)
    both = energy_shares(draws.view(1, 400, 1, 1), torch.zeros(1, 1, 1), WHOLE, centred=False).mean()
    spread = both + draws.abs().mean()  # mean |p - p'|: the share without its distance to the truth at 0
    near = (draws[None] - truths[:, :, 0]).abs().mean()
    return float(spread / 2 - near)


def test_the_true_distribution_earns_most_and_a_collapse_is_punished():
    earned = {deviation: mean_reward(deviation) for deviation in (0.05, 0.5, 1.0, 2.0)}
    assert max(earned, key=earned.__getitem__) == 1.0
    assert earned[0.05] < earned[0.5] < earned[1.0]
    assert mean_reward(1.0, centre=0.5) < earned[1.0]


def advantage_gradient(deviation: float, groups: int, n: int) -> float:
    """What advantages of a centred group do to log σ of N(0, σ²), where the truth is of N(0, 1)."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(groups, n, generator=generator)
    truth = torch.randn(groups, 1, 1, generator=generator)
    shares = energy_shares((deviation * noise)[:, :, None, None], truth, torch.ones(groups, n, dtype=torch.bool))
    advantages = shares - shares.mean(1, keepdim=True)
    return float((advantages * (noise.square() - 1)).mean())  # ∇ log π in log σ is ε² - 1


@pytest.mark.parametrize("n", [4, 16])
def test_the_score_functions_gradient_of_sigma_is_zero_at_the_true_one_and_points_to_it(n):
    groups = 200_000 // n
    assert advantage_gradient(0.3, groups, n) > 0.02
    assert advantage_gradient(2.5, groups, n) < -0.02
    assert advantage_gradient(1.0, groups, n) == pytest.approx(0.0, abs=0.01)


def test_draws_that_do_not_count_are_in_no_pair():
    generator = torch.Generator().manual_seed(4)
    points, truth = torch.randn(2, 5, 3, 2, generator=generator), torch.randn(2, 3, 2, generator=generator)
    valid = torch.tensor([[True, True, False, True, False]] * 2)
    shares = energy_shares(points, truth, valid)
    alone = energy_shares(points[:, [0, 1, 3]], truth, torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(shares[:, [0, 1, 3]], alone)
