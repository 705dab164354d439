"""Append-only line files, written by one process at a time."""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from pose_rft.io import door
from pose_rft.io.lock import Busy


def open_appended(path: Path) -> BinaryIO:
    """Opens the file, created if missing, for reading and appending; the lock ends with the process, even if killed.

    Raises:
        Busy: another process has it open. door.Unreadable: it is not a regular file. OSError: it cannot be written.
    """
    if path.exists():
        door.check_file(path)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Busy(f"Another run writes {path}; wait for its end, or name another folder.") from None
    return file


def append(file: BinaryIO, content: bytes) -> None:
    """Appends the content and returns once it is on disk."""
    file.seek(0, os.SEEK_END)
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
