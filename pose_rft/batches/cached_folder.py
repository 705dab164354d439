"""Scratch folders that several processes share and one of them creates (samples, crops, features)."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from pose_rft.io import atomic


def cached_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns `folder`; if it is missing, creates it atomically with `make(temporary folder)`.

    Stages and ranks that need it at the same time wait for the first one.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(atomic.beside(folder, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                with atomic.folder(folder) as temporary:
                    make(temporary)
    return folder
