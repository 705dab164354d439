"""One process at a time in a folder of unfinished work."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pose_rft.errors import PoseRftError

BUSY_STATUS = 75  # the exit status of an entry point that ends for this reason (EX_TEMPFAIL: try again later)


class Busy(PoseRftError):
    """Another process has what this one needs; it is worth waiting for."""


@contextmanager
def alone_in(folder: Path, wait: bool = False) -> Iterator[None]:
    """Two runs in one scratch would remove each other's unfinished files. A kill ends the lock too.

    Raises:
        Busy: another process is in it, and `wait` is off.
    """
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"Another process works in {folder}; wait for its end, or stop it.") from None
        yield


def remove_abandoned(folder: Path) -> None:
    """Removes the folders in `folder` that a run has locked once and none is in now, and then `folder` if it is empty.

    What another process works in stays, as does a folder just made, which has no lock yet.
    """
    for left in sorted(folder.iterdir()):
        if (left / "lock").is_file():
            with suppress(Busy), alone_in(left):
                shutil.rmtree(left, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
