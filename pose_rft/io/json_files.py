"""Third-party JSON files: parsed within bounds, and checked for the type of their top-level value.

Depth and the length of numbers are checked before anything is parsed: Python's parser recurses, so its depth limit
depends on its caller's; it takes quadratic time for long integers and cannot turn one above 1.8e308 into a float.
`NaN`, `Infinity` and floats that overflow pass unchanged, because their consumers check numbers anyway, and a single
NaN in a release is a defect of one sample, not a JSON error.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

LONGEST_NUMBER = 300  # digits
DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
BLOCK = 1 << 24  # bytes checked at a time
DEEPEST = 100  # levels; releases have seven
NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
STRING = re.compile(rb'"[^"]*"?')


def read_json(path: Path, kind: type | None = None) -> Any:
    """Reads a file; `kind`: dict or list, the required type of the top-level value.

    Raises:
        PoseRftError: no such file, not JSON, nested too deeply, or another type at the top level.
    """
    with limits.bounded(path):
        return parse_json(door.read_file(path), path, kind)


def parse_json(data: bytes, where: Path | str, kind: type | None = None) -> Any:
    """As `read_json`, for bytes that came from `where`."""
    try:
        with limits.bounded(where, len(data)):
            if json.detect_encoding(data) not in ("utf-8", "utf-8-sig"):
                raise ValueError("it is not UTF-8 text")
            _check_numbers(data)
            _check_depth(data)
            content = json.loads(data)
    except ValueError as error:
        cause = " ".join(str(error).split())[:120]
        raise PoseRftError(f"{where} is not JSON ({cause}); download or write it again.") from None
    if kind is not None and not isinstance(content, kind):
        raise PoseRftError(f"{where} holds a {type(content).__name__}, expected a {kind.__name__}; get it again.")
    return content


def _check_numbers(data: bytes) -> None:
    """
    Raises:
        ValueError: a number has too many digits.
    """
    for start in range(0, len(data), BLOCK):
        if b"0" * LONGEST_NUMBER in data[start : start + BLOCK + LONGEST_NUMBER].translate(DIGITS):
            raise ValueError(f"a number of {LONGEST_NUMBER} digits or more")


def _check_depth(data: bytes) -> None:
    """
    Raises:
        ValueError: nested too deeply.
    """
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"")  # the remaining quotes begin or end a string
    # Two adjacent quotes now enclose nothing: removing both does not change what else is inside or outside a string.
    structure = STRING.sub(b"", plain.translate(None, NOT_STRUCTURE).replace(b'""', b""))
    steps = np.frombuffer(structure, np.uint8)
    opens = (steps == ord("[")) | (steps == ord("{"))
    if len(steps) and np.cumsum(np.where(opens, 1, -1)).max() > DEEPEST:
        raise ValueError(f"it nests deeper than {DEEPEST} levels")
