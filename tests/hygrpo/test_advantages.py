import pytest
import torch

from pose_rft.hygrpo.advantages import group_advantages

FLOOR = 1e-4


def advantages(rewards: list[list[float]] | torch.Tensor, valid: list[list[bool]] | torch.Tensor | None = None):
    rewards = torch.as_tensor(rewards)
    valid = torch.ones_like(rewards, dtype=torch.bool) if valid is None else torch.as_tensor(valid)
    return group_advantages(rewards, valid, FLOOR)


def test_equal_rewards_give_exactly_zero_even_with_a_float32_residue():
    constant = torch.full((1, 8), 0.35)
    residue = constant.clone()
    residue[0, 3] = torch.nextafter(residue[0, 3], torch.tensor(1.0))
    for rewards in (constant, residue, torch.zeros(1, 8), constant * 1e6):
        result = advantages(rewards)
        assert (result.values == 0).all() and not result.informative.any()


def test_one_valid_pose_or_none_gives_exactly_zero():
    result = advantages([[3.0, 9.0, 1.0], [3.0, 9.0, 1.0]], [[False, True, False], [False, False, False]])
    assert (result.values == 0).all() and not result.informative.any()


def test_one_winner_of_four_gets_the_unbiased_z_score():
    assert advantages([[1.0, 0.0, 0.0, 0.0]]).values[0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])


def test_invalid_members_change_nothing_and_may_be_nan():
    with_gaps = advantages([[5.0, float("nan"), 1.0, 3.0]], [[True, False, True, True]]).values[0]
    assert with_gaps[1] == 0
    assert torch.equal(with_gaps[[0, 2, 3]], advantages([[5.0, 1.0, 3.0]]).values[0])


def test_group_order_and_affine_changes_of_the_reward_do_not_change_advantages():
    rewards = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    base = advantages(rewards).values
    torch.testing.assert_close(advantages(rewards[:, order]).values, base[:, order])
    torch.testing.assert_close(advantages(rewards * 1000 + 3).values, base, atol=1e-4, rtol=0)
    torch.testing.assert_close(advantages(-rewards).values, -base)


def test_groups_do_not_see_each_other():
    rewards = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([advantages(row[None]).values for row in rewards])
    assert torch.equal(advantages(rewards).values, alone)


def test_each_informative_group_has_mean_zero_and_unit_deviation_over_its_valid_members():
    generator = torch.Generator().manual_seed(0)
    rewards, valid = torch.rand(4, 9, generator=generator) * 100, torch.rand(4, 9, generator=generator) < 0.6
    values = advantages(rewards, valid).values
    for row, keep in zip(values, valid, strict=True):
        assert row[keep].mean().abs() < 1e-6
        assert row[keep].std() == pytest.approx(1.0, abs=1e-5)


def test_heavy_tailed_inverse_errors_give_the_known_values():
    # Errors of 20, 80, 100, 120 mm as 1/x rewards, reference/rl_training 7.14.
    rewards = 1 / torch.tensor([[0.02, 0.08, 0.10, 0.12]])
    assert advantages(rewards).values[0].tolist() == pytest.approx([1.49, -0.39, -0.51, -0.60], abs=0.01)


def test_a_reward_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        advantages([[1.0, float("inf")]])


def test_advantages_carry_no_gradient():
    rewards = torch.rand(2, 4, requires_grad=True)
    assert not advantages(rewards).values.requires_grad
