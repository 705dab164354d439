"""Retrieval recall of Table 2: is the true partner among the K best matches?

Row i and column i of a similarity matrix (texts × poses) are a true pair. `t2p` retrieves poses by text, `p2t` texts
by pose. Protocols: the whole set as the pool, or random pools (true partner + distractors) with the *hits* averaged
over the repetitions. (PoseScript's R-precision averages the ranks instead, which a single bad draw can spoil.)

Ties are broken in expectation: a true partner that ties with others counts with the probability that a random order
puts it among the first K. So a model that maps everything to one point gets exactly chance.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from pose_rft.seeds import torch_generator

Direction = Literal["t2p", "p2t"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
TABLE_2_KS = (
    5,
    10,
    20,
)  # also Table 3's mRecall; PoseScript's own mRecall is the mean over 1, 5, 10 and both directions


def recall_at(similarity: Tensor, ks: Sequence[int], direction: Direction) -> dict[int, float]:
    """Recall@K with the whole set as the pool.

    Args:
        similarity: (N, N) texts × poses, higher is more similar.
        ks: values of K; a K above N gives 100.
    Returns:
        {K: percent of queries}.
    Raises:
        ValueError: not a square matrix, or a score that is not finite.
    """
    scores = _queries_first(similarity, direction)
    own = scores.diagonal()[:, None]
    above = (scores > own).sum(dim=1)
    level = (scores == own).sum(dim=1)  # at least 1: itself
    return {int(k): _percent(above, level, k) for k in ks}


def pooled_recall(
    similarity: Tensor, ks: Sequence[int], direction: Direction, *, pool: int, repeats: int, seed: int
) -> dict[int, float]:
    """Recall@K in pools of the query's partner and `pool - 1` others, drawn anew for each query and repetition.

    Args:
        similarity: (N, N) texts × poses.
        pool: candidates per query; a pool of N or more is the whole set.
        repeats, seed: number of draws whose hits are averaged; same seed, same draws.
    Returns:
        {K: percent of queries × repetitions}.
    Raises:
        ValueError: as `recall_at`, or pool or repeats < 1.
    """
    if pool < 1 or repeats < 1:
        raise ValueError(f"pool and repeats must be at least 1, got {pool} and {repeats}")
    scores = _queries_first(similarity, direction)
    count = len(scores)
    if pool >= count:
        return recall_at(similarity, ks, direction)
    own = scores.diagonal()[:, None]
    totals = dict.fromkeys((int(k) for k in ks), 0.0)
    for repeat in range(repeats):
        order = torch.rand(count, count, generator=torch_generator(seed, "recall-pool", direction, pool, repeat))
        order.fill_diagonal_(-1.0)  # the partner always comes first
        members = order.argsort(dim=1)[:, :pool].to(scores.device)
        candidates = scores.gather(1, members)
        above, level = (candidates > own).sum(dim=1), (candidates == own).sum(dim=1)
        for k in totals:
            totals[k] += _percent(above, level, k) / repeats
    return totals


def chance(k: int, pool: int) -> float:
    """Recall@K of a random ranking, in percent."""
    return 100.0 * min(k / pool, 1.0)


def mean_recall(recall: dict[int, float]) -> float:
    """mRecall of Table 3: the mean over K of one direction, in percent."""
    return sum(recall.values()) / len(recall)


def _queries_first(similarity: Tensor, direction: Direction) -> Tensor:
    """(N, N) with the queries of `direction` as rows."""
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise ValueError(f"expected a square matrix of scores, got {tuple(similarity.shape)}")
    if not torch.isfinite(similarity).all():
        raise ValueError("the scores hold a number that is not finite")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}, expected one of {DIRECTIONS}")
    return similarity if direction == "t2p" else similarity.T


def _percent(above: Tensor, level: Tensor, k: int) -> float:
    """Mean chance that the partner is in the top k, given how many score above and equal to it (including itself)."""
    return float(((k - above) / level).clamp(0.0, 1.0).double().mean() * 100.0)
