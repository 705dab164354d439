"""How many processes or threads are worth starting here."""

import os


def cores() -> int:
    """Cores that this process may use: those it is pinned to, or all where the system pins nothing."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
