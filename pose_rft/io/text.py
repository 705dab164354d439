"""Strings that UTF-8 cannot encode: JSON and file names may contain lone surrogates (`\\ud83d`)."""

import io
import os
import sys

from pose_rft.errors import PoseRftError


class InvalidText(PoseRftError):
    """A string cannot be stored as UTF-8; the sample that contains it is a defect."""


def is_text(value: str) -> bool:
    """Whether UTF-8 can encode the string."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def print_anything() -> None:
    """Makes stdout and stderr escape characters that they cannot encode (as in `\\udcff`) instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_nowhere() -> None:
    """Redirects stdout to /dev/null when its reader has gone, so the interpreter's final flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
