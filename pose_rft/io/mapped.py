"""Arrays in scratch that are mapped into memory.

A file that is only as long as its array is a promise: where the disk is full, touching the map ends the process with
SIGBUS instead of an error. So the space is taken before the map is made, and a full disk is an OSError that says so.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike


@contextmanager
def new_array(path: Path, kind: DTypeLike, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """A new .npy file of this type and shape, mapped for the block to fill, on disk when it ends.

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
    """An .npy file that this project wrote, mapped for reading."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)  # glibc writes where the file system cannot reserve
        return
    left = size - os.fstat(descriptor).st_size  # macOS
    while left > 0:
        left -= os.write(descriptor, bytes(min(left, 1 << 20)))
