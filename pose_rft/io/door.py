"""The one way in for files that others made: regular files only, of a size that is known before a byte is read.

A FIFO or a device where a file should be would keep its reader waiting for ever, or feed it without end. Every reader
of `pose_rft.io` opens through here, and modules outside `io` open nothing themselves (tests/test_architecture.py).
"""

import os
import stat
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pose_rft.errors import PoseRftError, visible

PIECE = 1 << 20  # bytes
MOST = 1 << 33  # bytes read at once; the largest annotation files of releases have 2 GB
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Unreadable(PoseRftError):
    """A file that cannot be opened or read; `reason` says why in a few words, without its name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{visible(str(path)):.1000} {reason}.")
        self.reason = reason


class Missing(Unreadable):
    """There is no such file."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, "does not exist")


def open_file(path: Path) -> BinaryIO:
    """The file, open for reading bytes.

    Raises:
        Missing: there is none. Unreadable: it is no regular file (a link to one is fine), or may not be read.
    """
    try:
        _check_regular(path, Path(path).stat().st_mode)  # opening a device may do something already
        # What lies there may have changed since: without O_NONBLOCK a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(path) from None
    except OSError as error:
        raise Unreadable(path, f"cannot be read ({error.strerror})") from None
    except ValueError:  # a NUL, or half of a UTF-16 pair
        raise Unreadable(repr(str(path)), "is no name that a file can have") from None
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_file(path: Path) -> int:
    """The size of a file that a library is going to open by its name.

    Raises:
        As `open_file`.
    """
    with open_file(path) as file:
        return os.fstat(file.fileno()).st_size


def read_file(path: Path, most: int = MOST) -> bytes:
    """The whole content, if it has at most `most` bytes.

    Raises:
        As `open_file`; Unreadable: it is larger, or reading fails.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise Unreadable(path, f"has {size} bytes, expected at most {most}")
        try:
            if size:
                return file.read()
            # Empty, or the kernel's (/proc), which says no size: in pieces, as room for a piece is made before it.
            return b"".join(islice(iter(lambda: file.read(PIECE), b""), most // PIECE + 1))[:most]
        except OSError as error:
            raise Unreadable(path, f"cannot be read ({error.strerror})") from None


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in KINDS if is_kind(mode)), "no regular file")
        raise Unreadable(path, f"is {kind}, expected a regular file")
