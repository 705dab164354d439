"""One worker, a short queue and the latest results, so that the page never runs two jobs at once."""

import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from pose_rft.errors import PoseRftError

MOST_WAITING = 8
MOST_KEPT = 12
LONGEST = 120.0  # seconds of work; a thread cannot be stopped, so a late result is dropped

State = Literal["waiting", "working", "done", "failed"]
T = TypeVar("T")


class Full(PoseRftError):
    """The queue is full."""


@dataclass(eq=False)
class Job(Generic[T]):
    """A piece of work and its outcome: `result` once done, `error` (a sentence) once failed."""

    work: Callable[[], T] | None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    state: State = "waiting"
    started: float | None = None
    result: T | None = None
    error: str | None = None


class Desk(Generic[T]):
    """Runs jobs one at a time, in the order of submission, in its own thread."""

    def __init__(self, longest: float = LONGEST) -> None:
        self.longest = longest
        self._jobs: OrderedDict[str, Job[T]] = OrderedDict()
        self._queue: queue.Queue[Job[T]] = queue.Queue()
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="desk", daemon=True).start()

    def submit(self, work: Callable[[], T]) -> Job[T]:
        """Puts `work` at the end of the queue; a `PoseRftError` that it raises becomes the job's `error`.

        Raises:
            Full: too many jobs are waiting.
        """
        with self._lock:
            if sum(job.state == "waiting" for job in self._jobs.values()) >= MOST_WAITING:
                raise Full(f"{MOST_WAITING} requests wait already; try again when one is done.")
            job = Job(work)
            self._jobs[job.id] = job
            finished = [key for key, other in self._jobs.items() if other.state in ("done", "failed")]
            for key in finished[: max(0, len(finished) - MOST_KEPT)]:
                del self._jobs[key]
        self._queue.put(job)
        return job

    def job(self, key: str) -> Job[T]:
        """Returns a job by its id.

        Raises:
            PoseRftError: there is no such job, or it was dropped; only the latest ones are kept.
        """
        with self._lock:
            if key not in self._jobs:
                raise PoseRftError("This result is no longer kept; send the photograph or sentence again.")
            job = self._jobs[key]
            if job.state == "working" and job.started and time.monotonic() - job.started > self.longest:
                self._end(job, None, f"This takes more than {self.longest:g} s; try a smaller photograph.")
            return job

    def before(self, job: Job[T]) -> int:
        """Returns the number of jobs ahead of this one."""
        with self._lock:
            ahead = [other for other in self._jobs.values() if other.state in ("waiting", "working")]
            return ahead.index(job) if job in ahead else 0

    def _serve(self) -> None:
        while True:
            job = self._queue.get()
            with self._lock:
                job.state, job.started = "working", time.monotonic()
            result: T | None = None
            error: str | None = None
            try:
                assert job.work is not None
                result = job.work()
            except PoseRftError as problem:
                error = str(problem)
            except Exception as problem:  # keeps the worker alive; reports the bug to the user
                error = f"Something went wrong ({type(problem).__name__}: {problem!s:.200}); please report it."
            with self._lock:
                if job.state == "working":
                    self._end(job, result, error)

    @staticmethod
    def _end(job: Job[T], result: T | None, error: str | None) -> None:
        job.result, job.error, job.work = result, error, None  # frees the upload that `work` holds
        job.state = "failed" if error else "done"
