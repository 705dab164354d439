"""Fair timing: the variants take turns, so that a slow minute of the machine slows all of them."""

from collections.abc import Callable, Mapping


def best(ways: Mapping[str, Callable[[], object]], rounds: int, now: Callable[[], float]) -> dict[str, float]:
    """Returns the seconds of each way's best round; a way may report its own seconds by returning a float."""
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            began = now()
            told = way()
            seconds[name] = min(seconds[name], told if isinstance(told, float) else now() - began)
    return seconds
