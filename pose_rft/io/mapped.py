"""Memory-mapped arrays in scratch.

Merely extending a file reserves no disk space: on a full disk, touching the map kills the process with SIGBUS instead
of raising an error. So the space is allocated before mapping, and a full disk raises an OSError that says so.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.parsing import DAMAGE


@contextmanager
def new_array(path: Path, kind: DTypeLike, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Creates an .npy file and maps it for the block to fill; it is flushed to disk when the block ends.

    Raises:
        OSError: no space; its `filename` is `path`.
    """
    dtype = np.dtype(kind)
    try:
        with open(path, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            file.flush()
            _reserve(file.fileno(), start + size)
    except OSError as error:
        error.filename = str(path)
        raise
    array = np.memmap(path, dtype, "r+", start, shape)
    yield array
    array.flush()


def open_array(path: Path) -> np.ndarray:
    """Maps an .npy file that this project wrote, for reading.

    Raises:
        PoseRftError: it is missing, not a regular file, truncated or damaged.
    """
    door.check_file(path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (*DAMAGE, OSError):
        raise PoseRftError(f"{path} is damaged; remove {path.parent}, and the next run makes it again.") from None


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)  # glibc falls back to writing if the file system cannot reserve
        return
    left = size - os.fstat(descriptor).st_size  # macOS
    while left > 0:
        left -= os.write(descriptor, bytes(min(left, 1 << 20)))
