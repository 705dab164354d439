"""Runs one function over many jobs, here or in worker processes; results come as they finish.

The function and its jobs are picklable and share nothing but the file system, so another engine needs one more branch
here and nothing elsewhere.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Literal, TypeVar

from pose_rft.errors import PoseRftError

Job = TypeVar("Job")
Result = TypeVar("Result")

START_SECONDS = 3.0  # until a worker has imported what it needs


def map_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], executor: Literal["serial", "process"], workers: int
) -> Iterator[Result]:
    """Yields `function(job)` for every job, in the order of completion.

    `process` begins in this process too, and starts workers as soon as the work that is left takes longer than they
    need to start. When a job fails, no further job starts, those that run are finished (their work counts at the next
    try), and the error is raised.

    Raises:
        PoseRftError: a job raised it, or a worker died (killed for its memory, say).
    """
    spent = 0.0
    for done, job in enumerate(jobs, start=1):
        began = time.monotonic()
        result = function(job)
        spent += time.monotonic() - began
        yield result
        left = len(jobs) - done
        helpers = min(workers, left)
        if executor == "process" and helpers > 1 and spent / done * left * (1 - 1 / helpers) > START_SECONDS:
            yield from _in_workers(function, jobs[done:], helpers)
            return


def _in_workers(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        for future in as_completed([pool.submit(function, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise PoseRftError(
            f"One of {workers} worker processes died without a word, most often for lack of memory; lower "
            "`shards.workers` and run again, which continues after the shards that are complete."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """A worker computes with one thread, and ends when the process that it works for has died (kill -9)."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for module, limit in (("torch", "set_num_threads"), ("cv2", "setNumThreads")):
        if module in sys.modules:  # loaded with the function's own module, before this could be said
            getattr(sys.modules[module], limit)(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
