"""Locks that admit one process at a time to a folder of unfinished work."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pose_rft.errors import PoseRftError

BUSY_STATUS = 75  # exit status of an entry point that ends with `Busy` (EX_TEMPFAIL: try again later)


class Busy(PoseRftError):
    """Another process holds what this one needs; retrying later is worthwhile."""


@contextmanager
def alone_in(folder: Path, wait: bool = False) -> Iterator[None]:
    """Locks a scratch folder: two runs in it would remove each other's files. Killing the process releases the lock.

    Raises:
        Busy: another process holds the lock, and `wait` is off.
    """
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"Another process works in {folder}; wait for its end, or stop it.") from None
        yield


def remove_abandoned(folder: Path) -> None:
    """Removes the folders in `folder` that runs have left behind (their lock is free), then `folder` itself if empty.

    A folder that another process works in stays, as does a new one, which has no lock file yet.
    """
    for left in sorted(folder.iterdir()):
        if (left / "lock").is_file():
            with suppress(Busy), alone_in(left):
                shutil.rmtree(left, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
