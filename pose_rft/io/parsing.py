"""One sentence for every way in which a file of a release may not be what its reader expects."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io import limits

# What parsing of damaged or foreign content raises (struct.error and zlib.error share no base class with the rest).
DAMAGE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, EOFError, struct.error, zlib.error)


@contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """The block makes sense of `path`, within bounds of memory; where that fails, the file is not `kind`.

    Raises:
        PoseRftError: for whatever the block raises that damaged content can cause; its own sentences stay as they are.
    """
    try:
        with limits.bounded(path):
            yield
    except DAMAGE as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not {kind} ({cause}); download it again.") from None
