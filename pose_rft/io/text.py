"""Is a string text? JSON and file names may carry halves of UTF-16 pairs (`\\ud83d`), which no UTF-8 file can hold."""

import io
import os
import sys

from pose_rft.errors import PoseRftError


class InvalidText(PoseRftError):
    """A string that cannot be stored as UTF-8; the sample that carries it is a defect."""


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold the string."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def print_anything() -> None:
    """From now on what a terminal's alphabet lacks, or a file's name that is no UTF-8, is written out as `\\udcff`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_nowhere() -> None:
    """What is left of this process's output has no reader any more; the interpreter flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
