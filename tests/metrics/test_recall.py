import pytest
import torch

from pose_rft.metrics.recall import DIRECTIONS, chance, mean_recall, pooled_recall, recall_at

KS = (1, 5, 10)


def random_scores(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_identical_embeddings_are_always_found(direction):
    embedding = torch.nn.functional.normalize(random_scores(50)[:, :16], dim=1)
    assert recall_at(embedding @ embedding.T, KS, direction) == {1: 100.0, 5: 100.0, 10: 100.0}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_random_scores_reach_chance(direction):
    recall = recall_at(random_scores(2000), KS, direction)
    assert all(abs(recall[k] - chance(k, 2000)) < 0.3 for k in KS)
    pooled = pooled_recall(random_scores(1000), KS, direction, pool=32, repeats=3, seed=1)
    assert all(abs(pooled[k] - chance(k, 32)) < 4 for k in KS)


def test_directions_ask_rows_and_columns():
    # Text 0 prefers pose 1; every pose prefers its own text.
    scores = torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    assert recall_at(scores, (1,), "t2p")[1] == pytest.approx(200 / 3)
    assert recall_at(scores, (1,), "p2t")[1] == pytest.approx(100)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_k_above_the_pool_is_safe(direction):
    assert recall_at(random_scores(4), (4, 5, 100), direction) == {4: 100.0, 5: 100.0, 100: 100.0}
    assert pooled_recall(random_scores(9), (20,), direction, pool=5, repeats=2, seed=0)[20] == 100.0
    assert chance(20, 5) == 100.0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_pool_of_everything_equals_the_full_protocol(direction):
    scores = random_scores(40)
    assert pooled_recall(scores, KS, direction, pool=40, repeats=3, seed=0) == recall_at(scores, KS, direction)


def test_pools_average_hits_and_not_ranks():
    # The partner is beaten by 4 of 39 others: with 4 distractors it is first when none of the 4 is drawn.
    count, pool = 40, 5
    scores = torch.zeros(count, count)
    scores.fill_diagonal_(1.0)
    for i in range(count):
        for step in range(1, 5):
            scores[i, (i + step) % count] = 2.0
    expected = 100.0
    for draw in range(pool - 1):
        expected *= (count - 1 - 4 - draw) / (count - 1 - draw)
    measured = pooled_recall(scores, (1,), "t2p", pool=pool, repeats=200, seed=3)[1]
    assert measured == pytest.approx(expected, abs=2)


def test_a_model_that_maps_everything_to_one_point_gets_chance():
    scores = torch.ones(64, 64)
    for k in KS:
        assert recall_at(scores, KS, "t2p")[k] == pytest.approx(chance(k, 64))
        assert pooled_recall(scores, KS, "p2t", pool=32, repeats=2, seed=0)[k] == pytest.approx(chance(k, 32))


def test_the_same_seed_draws_the_same_pools():
    scores = random_scores(60)
    draws = [pooled_recall(scores, KS, "t2p", pool=10, repeats=1, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_smaller_pools_are_easier():
    scores = random_scores(200) + 1.5 * torch.eye(200)
    full = recall_at(scores, KS, "t2p")
    pooled = pooled_recall(scores, KS, "t2p", pool=32, repeats=10, seed=0)
    assert all(pooled[k] > full[k] for k in KS)


def test_mean_recall_is_the_mean_over_k():
    assert mean_recall({5: 42.2, 10: 53.0, 20: 65.5}) == pytest.approx(53.57, abs=0.01)  # paper, Tables 2 and 3


def test_scores_that_cannot_be_ranked_are_refused():
    with pytest.raises(ValueError, match="square"):
        recall_at(torch.zeros(3, 4), KS, "t2p")
    with pytest.raises(ValueError, match="finite"):
        recall_at(torch.full((3, 3), torch.nan), KS, "t2p")
