import numpy as np
import pytest

from pose_rft.captions.draws import Draws


def one_by_one(rng: np.random.Generator, kind: int, n: int):
    if kind == 0:
        return int(rng.integers(n))
    if kind == 1:
        return float(rng.random())
    rng.shuffle(items := list(range(n)))
    return items


def from_block(draws: Draws, kind: int, n: int):
    if kind == 0:
        return draws.below(n)
    if kind == 1:
        return draws.random()
    draws.shuffle(items := list(range(n)))
    return items


@pytest.mark.parametrize("seed", range(40))
def test_draws_are_the_generators_own_and_it_goes_on_behind_them(seed: int) -> None:
    plan = np.random.default_rng(1000 + seed)
    wanted = [(int(plan.integers(3)), int(plan.integers(1, 30))) for _ in range(int(plan.integers(300)))]
    slow, fast = np.random.default_rng(seed), np.random.default_rng(seed)
    if seed % 2:  # half a word is left over
        assert slow.integers(9) == fast.integers(9)
    with Draws(fast) as draws:
        assert [from_block(draws, *want) for want in wanted] == [one_by_one(slow, *want) for want in wanted]
    assert [one_by_one(fast, *want) for want in wanted] == [one_by_one(slow, *want) for want in wanted]


def test_large_ranges_reject_as_numpy_does() -> None:
    slow, fast = np.random.default_rng(5), np.random.default_rng(5)
    count = 3 * 2**30  # a quarter of all draws is rejected
    with Draws(fast) as draws:
        assert [draws.below(count) for _ in range(200)] == [int(slow.integers(count)) for _ in range(200)]


def test_another_kind_of_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="PCG64"):
        Draws(np.random.Generator(np.random.MT19937(0)))
