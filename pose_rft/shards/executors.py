"""Runs one function over many jobs: in this process, in worker processes, or on a Dask cluster.

The function and its jobs are picklable and share only the file system, so the executor does not affect the results.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Literal, TypeVar

from pose_rft.errors import PoseRftError

Job = TypeVar("Job")
Result = TypeVar("Result")
Executor = Literal["serial", "process", "dask"]

START_SECONDS = 3.0  # start-up time of a worker, mostly imports


def map_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    executor: Executor,
    workers: int,
    cluster: str | None = None,
) -> Iterator[Result]:
    """Yields `function(job)` for every job, in the order of completion.

    `process` also begins in this process, and starts workers once they would save more than their start-up time. `dask`
    uses the scheduler at the address `cluster`, whose workers must see the same file system; without an address it
    means `process`, because a scheduler started here would accept work from every account of this machine. When a job
    fails, no further job starts, running jobs are completed (the next run reuses their work), and the error is raised.

    Raises:
        PoseRftError: a job raised it, a worker died (e.g. out of memory), Dask is missing, or no scheduler answers.
    """
    if executor == "dask" and cluster is not None:
        yield from _in_dask(function, jobs, cluster)
        return
    spent = 0.0
    for done, job in enumerate(jobs, start=1):
        began = time.monotonic()
        result = function(job)
        spent += time.monotonic() - began
        yield result
        left = len(jobs) - done
        helpers = min(workers, left)
        if executor != "serial" and helpers > 1 and spent / done * left * (1 - 1 / helpers) > START_SECONDS:
            yield from _in_workers(function, jobs[done:], helpers)
            return


def _in_workers(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        for future in as_completed([pool.submit(function, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise _dead_worker(workers) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_dask(function: Callable[[Job], Result], jobs: Sequence[Job], cluster: str) -> Iterator[Result]:
    try:
        import distributed
    except ImportError:
        raise PoseRftError(
            "`shards.executor: dask` needs Dask, which is not installed; `pip install 'pose-rft[cluster]'`, or choose "
            "`process`."
        ) from None
    if not jobs:
        return
    with ExitStack() as stack:
        try:
            client = stack.enter_context(distributed.Client(cluster))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise PoseRftError(f"No Dask scheduler answers at `shards.cluster` = {cluster} ({reason}).") from None
        slots = max(sum(client.nthreads().values()), 1)
        waiting = iter(jobs)

        def submit(count: int) -> list[Any]:
            return [client.submit(function, job, pure=False) for job in islice(waiting, count)]

        # Only one job per slot is submitted at a time, so that after a failure the remaining jobs never start.
        running = distributed.as_completed(submit(slots))
        failure: BaseException | None = None
        for future in running:
            if (raised := future.exception()) is not None:
                failure = failure or raised
            else:
                yield future.result()
            if failure is None:
                running.update(submit(1))
        if isinstance(failure, distributed.KilledWorker):
            raise _dead_worker(slots)
        if failure is not None:
            raise failure


def _dead_worker(workers: int) -> PoseRftError:
    return PoseRftError(
        f"One of {workers} worker processes died without a word, most often for lack of memory; lower "
        "`shards.workers` and run again, which continues after the shards that are complete."
    )


def _begin_worker() -> None:
    """Limits a worker to one thread, and ends it when its parent process dies (even by kill -9)."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for module, limit in (("torch", "set_num_threads"), ("cv2", "setNumThreads")):
        if module in sys.modules:  # already imported with the function's module, so the variable came too late
            getattr(sys.modules[module], limit)(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
