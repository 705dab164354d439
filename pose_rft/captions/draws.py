"""Draws the same numbers as a numpy Generator without its overhead per call.

A caption draws about forty small numbers, and `Generator.integers` takes longer to check its arguments than to draw.
This module fetches a block of raw words at once and splits it as numpy does: a bounded integer from half a word by
Lemire's multiplication ("Fast Random Integer Generation in an Interval", 2019), a shuffle index by masking, a double
from a word's upper 53 bits. So the numbers equal the Generator's own, and its state afterwards is the same as after
individual calls.
"""

from collections.abc import MutableSequence
from types import TracebackType
from typing import Any

import numpy as np

BLOCK = 96  # words; three captions take about 70
HALF = 2**32
MASK = HALF - 1
DOUBLE = 2.0**-53


class Draws:
    """Draws from `rng` inside a `with` block; meanwhile `rng` itself must not be used.

    Raises:
        ValueError: `rng` does not use PCG64, the bit generator of `numpy.random.default_rng`.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        source = rng.bit_generator
        if not isinstance(source, np.random.PCG64):
            raise ValueError(f"expected a generator over PCG64 (numpy.random.default_rng), got {type(source).__name__}")
        self._source = source
        state = source.state
        self._half: int | None = state["uinteger"] if state["has_uint32"] else None
        self._words: list[int] = []

    def __enter__(self) -> "Draws":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Rewinds the generator by the words that were fetched but not drawn."""
        self._source.advance(2**128 - len(self._words))
        if self._half is not None:
            self._source.state = self._source.state | {"has_uint32": 1, "uinteger": self._half}

    def below(self, count: int) -> int:
        """Same as `int(rng.integers(count))`."""
        if count == 1:
            return 0
        while True:
            product = self._half_word() * count
            rest = product & MASK
            if rest >= count or rest >= (HALF - count) % count:  # the second test is rarely needed and always exact
                return product >> 32

    def random(self) -> float:
        """Same as `rng.random()`."""
        return (self._word() >> 11) * DOUBLE

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Same as `rng.shuffle(items)` of a list."""
        for last in range(len(items) - 1, 0, -1):
            mask = (1 << last.bit_length()) - 1
            while (other := self._half_word() & mask) > last:
                pass
            items[last], items[other] = items[other], items[last]

    def _half_word(self) -> int:
        if self._half is None:
            word = self._word()
            self._half = word >> 32
            return word & MASK
        half, self._half = self._half, None
        return half

    def _word(self) -> int:
        if not self._words:
            self._words = self._source.random_raw(BLOCK).tolist()[::-1]
        return self._words.pop()
