"""Reads variables of CDF files (Human3.6M's poses) within bounds.

cdflib trusts a file's counters and links even if they are damaged. Here the file's size bounds the number of reads, so
that a cycle of links or a count of billions ends at once.
"""

import io
from pathlib import Path
from typing import Any

import cdflib
import numpy as np
from numpy.typing import NDArray

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

FIXED_READS, BYTES_PER_READ = 10_000, 8  # reads, bytes; the smallest record that a link can point to is larger


class _Counted(io.BufferedReader):
    """A file that allows a limited number of reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.left = FIXED_READS + path.stat().st_size // BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ValueError("its records point in circles")
        return super().read(size)


class _CDF(cdflib.CDF):
    """Reads through `_Counted`, including files that cdflib decompresses into a temporary file."""

    @property
    def _f(self) -> Any:
        return self._counted

    @_f.setter
    def _f(self, file: Any) -> None:
        self._counted = _Counted(Path(file.name))
        file.close()


def read_variable(path: Path, name: str) -> NDArray[np.float64]:
    """Returns all records of one variable.

    Raises:
        PoseRftError: not a CDF file, damaged, or without this variable.
    """
    size = door.check_file(path)
    try:
        with limits.bounded(path, size):
            return np.asarray(_CDF(str(path)).varget(name), np.float64)
    except PoseRftError:
        raise
    except Exception as error:  # cdflib does not wrap its parsing errors
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not a CDF file with {name!r} ({cause}); download it again.") from None
