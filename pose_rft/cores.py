"""The number of processes or threads worth starting on this machine."""

import os


def cores() -> int:
    """Returns the number of cores this process may use: its CPU affinity, or all cores if the system has none."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
