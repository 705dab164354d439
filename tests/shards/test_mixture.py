import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_rft.shards.mixture import BLOCK, Mixture, Source

SOURCES = {"a": Source(100, 1.0), "b": Source(37, 2.0), "c": Source(5000, 0.5)}


def draws(mixture: Mixture, positions: range) -> list[tuple[str, int]]:
    return [tuple(mixture.draw(position)) for position in positions]


def test_a_position_always_gives_the_same_sample_whatever_was_drawn_before():
    straight = draws(Mixture(SOURCES, 7), range(3 * BLOCK))
    hopping = Mixture(SOURCES, 7)
    order = np.random.default_rng(0).permutation(3 * BLOCK)[:500]
    assert all(tuple(hopping.draw(int(p))) == straight[p] for p in order)
    assert draws(pickle.loads(pickle.dumps(hopping)), range(50)) == straight[:50]


def test_the_order_of_the_mapping_does_not_matter_but_the_seed_does():
    mirrored = Mixture(dict(reversed(SOURCES.items())), 7)
    assert draws(mirrored, range(200)) == draws(Mixture(SOURCES, 7), range(200))
    assert draws(Mixture(SOURCES, 8), range(200)) != draws(Mixture(SOURCES, 7), range(200))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0.01, 100.0)), min_size=1, max_size=6), st.integers(0, 2**31))
def test_shares_follow_the_weights_and_an_epoch_has_every_sample_once(rows, seed):
    sources = {f"s{i}": Source(*row) for i, row in enumerate(rows)}
    drawn = draws(Mixture(sources, seed), range(BLOCK))
    counts = Counter(name for name, _ in drawn)
    total = sum(source.weight for source in sources.values())
    for name, source in sources.items():
        assert abs(counts[name] - BLOCK * source.weight / total) <= len(sources)
        rows_of = [row for other, row in drawn if other == name]
        for epoch in range(len(rows_of) // source.length):
            assert sorted(rows_of[epoch * source.length :][: source.length]) == list(range(source.length))


def test_short_runs_have_about_the_right_shares():
    counts = Counter(name for name, _ in draws(Mixture(SOURCES, 3), range(BLOCK // 2, BLOCK // 2 + 700)))
    for name, share in {"a": 2 / 7, "b": 4 / 7, "c": 1 / 7}.items():
        assert abs(counts[name] / 700 - share) < 4 * (share * (1 - share) / 700) ** 0.5


def test_epochs_continue_over_blocks_and_differ_in_order():
    drawn = [row for name, row in draws(Mixture(SOURCES, 1), range(2 * BLOCK)) if name == "a"]
    epochs = [drawn[i : i + 100] for i in range(0, len(drawn) - 100, 100)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_sources_without_samples_or_weight_are_never_drawn():
    mixture = Mixture({"a": Source(3, 1), "empty": Source(0, 5), "off": Source(9, 0)}, 0)
    assert {name for name, _ in draws(mixture, range(100))} == {"a"}


@pytest.mark.parametrize("sources", [{}, {"a": Source(0, 1)}, {"a": Source(1, -1)}, {"a": Source(1, float("nan"))}])
def test_a_mixture_of_nothing_is_refused(sources):
    with pytest.raises(ValueError, match=r"mixture|weights"):
        Mixture(sources, 0)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_reads_the_same_order_also_after_a_resume(ranks: int) -> None:
    """A batch of 8 positions is shared out in runs; each rank has a mixture of its own and knows only the step."""
    expected = draws(Mixture(SOURCES, 7), range(3 * BLOCK - 40, 3 * BLOCK + 40))
    mixtures = [pickle.loads(pickle.dumps(Mixture(SOURCES, 7))) for _ in range(ranks)]
    each, order = 8 // ranks, []
    for step in range(10):
        if step == 5:
            mixtures = [Mixture(SOURCES, 7) for _ in range(ranks)]
        first = 3 * BLOCK - 40 + 8 * step
        for rank, mixture in enumerate(mixtures):
            order += draws(mixture, range(first + rank * each, first + (rank + 1) * each))
    assert order == expected


def test_a_resume_at_any_position_takes_far_less_than_a_second() -> None:
    """A million samples per source, a position after thousands of epochs."""
    import time

    began = time.perf_counter()
    Mixture({"a": Source(1_000_000, 1.0), "b": Source(300_000, 2.0)}, 3).draw(10**10 + 12_345)
    assert time.perf_counter() - began < 0.5
