"""Turns every parsing error of a damaged or unexpected release file into a one-sentence PoseRftError."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io import limits

# Exceptions that damaged or foreign content raises (struct.error and zlib.error share no base class with the rest).
DAMAGE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, EOFError, struct.error, zlib.error)


@contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Runs a block that parses `path`, within memory and time limits; if parsing fails, the file is not `kind`.

    Raises:
        PoseRftError: the block raised an exception of `DAMAGE`, exceeded a limit, or raised a PoseRftError (unchanged).
    """
    try:
        with limits.bounded(path):
            yield
    except DAMAGE as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not {kind} ({cause}); download it again.") from None
