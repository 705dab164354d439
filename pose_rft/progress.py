"""Progress of long tasks: a bar on a terminal, otherwise a plain line at intervals (logs, CI, Prefect)."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts finished items. Use as a context manager; `advance` takes an optional short note such as `loss 0.31`."""

    def __init__(self, label: str, total: int, unit: str = "it", start: int = 0) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, start
        self._first = start
        self._began = self._last = time.monotonic()
        self._bar = tqdm(total=total, initial=start, desc=label, unit=unit, leave=True) if sys.stderr.isatty() else None

    def advance(self, n: int = 1, note: str = "") -> None:
        """Counts `n` more finished items and updates the display if it is due."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES or self.done == self.total:
            self._last = now
            rate = (self.done - self._first) / max(now - self._began, 1e-9)
            tail = f" · {note}" if note else ""
            print(
                f"{self.label}: {self.done}/{self.total} {self.unit} ({rate:.1f}/s){tail}", file=sys.stderr, flush=True
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def track(items: Iterable[T], label: str, total: int, unit: str = "it") -> Iterator[T]:
    """Yields `items` and reports the consumer's progress."""
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
