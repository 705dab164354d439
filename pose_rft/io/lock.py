"""One process at a time in a folder of unfinished work."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pose_rft.core.errors import PoseRftError

BUSY = "Another process works in"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two runs in one scratch would remove each other's unfinished files. A kill ends the lock too.

    Raises:
        PoseRftError: another process is in it.
    """
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PoseRftError(f"{BUSY} {folder}; wait for its end, or stop it.") from None
        yield
