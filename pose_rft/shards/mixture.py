"""Maps each training position to a sample: a pure function of (seed, position).

Several sources are interleaved by weight, and each source is traversed epoch by epoch, every epoch in a new random
order. Draws are stateless, so one integer is the whole state: any worker, any world size and any resumed run sees the
same order.

Positions are grouped into blocks of 4,096. In a block each source has a fixed number of places (its weight, rounded),
shuffled by (seed, block), so the number of earlier draws from a source is known without drawing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pose_rft.seeds import numpy_rng

BLOCK = 4096


class Source(NamedTuple):
    """length: number of samples; weight: share of draws, relative to the other sources' weights."""

    length: int
    weight: float


class Draw(NamedTuple):
    """Sample number `row` of source `name`."""

    name: str
    row: int


class Mixture:
    """An endless, reproducible order over the samples of several sources.

    Raises:
        ValueError: a weight is negative or not finite, or nothing can be drawn.
    Sources without samples or with weight 0 are never drawn.
    """

    def __init__(self, sources: Mapping[str, Source], seed: int) -> None:
        if any(not (np.isfinite(source.weight) and source.weight >= 0) for source in sources.values()):
            raise ValueError("weights must be finite and not negative")
        self.seed = seed
        self.sources = {name: Source(*sources[name]) for name in sorted(sources)}
        self.names = [name for name, source in self.sources.items() if source.length > 0 and source.weight > 0]
        if not self.names:
            raise ValueError("a mixture needs a source with samples and a positive weight")
        self.places = _places(np.array([self.sources[name].weight for name in self.names], dtype=np.float64))
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None
        self._orders: dict[str, tuple[int, np.ndarray]] = {}

    def draw(self, position: int) -> Draw:
        """Returns the sample at `position` (0, 1, 2, …)."""
        block, place = divmod(position, BLOCK)
        who, rank = self._arrangement(block)
        source = int(who[place])
        name = self.names[source]
        epoch, offset = divmod(block * int(self.places[source]) + int(rank[place]), self.sources[name].length)
        return Draw(name, int(self._order(name, epoch)[offset]))

    def _arrangement(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (BLOCK,) source at each place, (BLOCK,) number of earlier places of the block with that source."""
        cached = self._block
        if cached is None or cached[0] != block:
            who = np.repeat(np.arange(len(self.names)), self.places)
            who = numpy_rng(self.seed, "mixture", "block", block).permutation(who)
            rank = np.empty(BLOCK, dtype=np.int64)
            for source, count in enumerate(self.places):
                rank[who == source] = np.arange(count)
            self._block = cached = (block, who, rank)
        return cached[1], cached[2]

    def _order(self, name: str, epoch: int) -> np.ndarray:
        cached = self._orders.get(name)
        if cached is None or cached[0] != epoch:
            order = numpy_rng(self.seed, "mixture", name, epoch).permutation(self.sources[name].length)
            self._orders[name] = cached = (epoch, order)
        return cached[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_block": None, "_orders": {}}


def _places(weights: np.ndarray) -> np.ndarray:
    """Returns each source's number of places in a block: largest-remainder method, at least one each."""
    exact = weights / weights.sum() * BLOCK
    places = np.maximum(np.floor(exact).astype(np.int64), 1)
    while places.sum() < BLOCK:
        places[np.argmax(exact - places)] += 1
    while places.sum() > BLOCK:
        places[np.argmax(places)] -= 1
    return places
