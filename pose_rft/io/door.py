"""The single entry point for third-party files: regular files only, whose size is known before a byte is read.

A FIFO or a device in place of a file would block its reader for ever, or feed it without end. The readers of
`pose_rft.io` open files through here, and modules outside `io` open no such files (tests/test_doors.py).
"""

import os
import stat
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pose_rft.errors import PoseRftError, visible

PIECE = 1 << 20  # bytes
MOST = 1 << 33  # bytes of one file; the largest annotation files of releases have 2 GB
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Unreadable(PoseRftError):
    """A file cannot be opened or read; `reason` says why in a few words, without the file's name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{visible(str(path)):.1000} {reason}.")
        self.reason = reason


class Missing(Unreadable):
    """The file does not exist."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "does not exist")


def open_file(path: Path) -> BinaryIO:
    """Opens a file for reading bytes.

    Raises:
        Missing: no such file. Unreadable: not a regular file (a link to one is fine), or no permission to read it.
    """
    try:
        _check_regular(path, Path(path).stat().st_mode)  # before opening, because opening a device can have effects
        # The file may have been replaced since: without O_NONBLOCK, opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(path) from None
    except OSError as error:
        raise Unreadable(path, f"cannot be read ({error.strerror})") from None
    except ValueError:  # a NUL, or a lone surrogate
        raise Unreadable(repr(str(path)), "is no name that a file can have") from None
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_file(path: Path) -> int:
    """Checks a file that a library will then open by name, and returns its size in bytes.

    Raises:
        As `open_file`.
    """
    with open_file(path) as file:
        return os.fstat(file.fileno()).st_size


def read_file(path: Path, most: int = MOST) -> bytes:
    """Reads a whole file of at most `most` bytes.

    Raises:
        As `open_file`; Unreadable: the file is larger, or reading fails.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise Unreadable(path, f"has {size} bytes, expected at most {most}")
        try:
            if size:
                return file.read()
            # Empty, or a /proc file, which reports size 0: in pieces, as each read allocates its whole buffer first.
            return b"".join(islice(iter(lambda: file.read(PIECE), b""), most // PIECE + 1))[:most]
        except OSError as error:
            raise Unreadable(path, f"cannot be read ({error.strerror})") from None


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in KINDS if is_kind(mode)), "no regular file")
        raise Unreadable(path, f"is {kind}, expected a regular file")
