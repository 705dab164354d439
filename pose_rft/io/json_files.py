"""JSON files that others made: parsed within bounds, and checked for what stands at their top.

Depth is bounded by Python's own count (`limits` turns its error into a sentence). Integers are bounded here: Python
takes quadratic time for long ones and cannot make a float of one above 1.8e308. `NaN`, `Infinity` and floats that
overflow come through as such, because whoever reads a number checks it anyway, and a release with one NaN is no JSON
error but a defect of one sample.
"""

import json
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

LONGEST_NUMBER = 300  # digits
DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
BLOCK = 1 << 24  # bytes looked at in one go


def read_json(path: Path, kind: type | None = None) -> Any:
    """The content of a file; `kind`: dict or list, what its top must be.

    Raises:
        PoseRftError: no such file, not JSON, nested absurdly, or another kind at its top.
    """
    with limits.bounded(path):
        return parse_json(door.read_file(path), path, kind)


def parse_json(data: bytes, where: Path | str, kind: type | None = None) -> Any:
    """As `read_json`, for bytes that came from `where`."""
    try:
        with limits.bounded(where, len(data)):
            _check_numbers(data)
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
        ValueError: digits without end.
    """
    for start in range(0, len(data), BLOCK):
        if b"0" * LONGEST_NUMBER in data[start : start + BLOCK + LONGEST_NUMBER].translate(DIGITS):
            raise ValueError(f"a number of {LONGEST_NUMBER} digits or more")
