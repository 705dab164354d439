"""Third-party HDF5 files: only plain datasets that are stored in the file itself.

The format can point to other files (external and soft links, external storage, virtual datasets) and load code for its
filters; none of that is followed here. Declared sizes are checked before anything is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# deflate, shuffle, checksum: the filters built into the library
FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
KINDS = "biufSO"  # numbers, text, references


class Hdf5:
    """An open file as a mapping from names, or from object references stored in its arrays, to datasets."""

    def __init__(self, file: h5py.File, path: Path, size: int) -> None:
        self._file, self._path, self._size = file, path, size

    def names(self) -> list[str]:
        """Returns the names of the top-level datasets that are stored in the file itself."""
        return [name for name in self._file if self._is_own(name) and isinstance(self._file[name], h5py.Dataset)]

    def __getitem__(self, key: "str | h5py.Reference") -> h5py.Dataset:
        """
        Raises:
            PoseRftError: it is stored elsewhere, or declares more than the file can hold. KeyError: no such dataset.
        """
        if isinstance(key, str) and not self._is_own(key):  # `in` would follow links
            raise KeyError(f"no dataset {key!r} in the file itself")
        found = self._file[key]
        if not isinstance(found, h5py.Dataset):
            raise KeyError(f"{key!r:.60} is no dataset")
        if found.external or found.is_virtual:
            raise PoseRftError(f"{self._path}: {key!r:.60} takes its numbers from another file; refusing to follow it.")
        plan = found.id.get_create_plist()
        filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
        if not filters <= set(FILTERS) or found.dtype.kind not in KINDS:
            raise PoseRftError(f"{self._path}: {key!r:.60} is stored in a way that no release uses; get it again.")
        if found.nbytes > limits.FIXED + limits.PER_BYTE * self._size:
            raise PoseRftError(f"{self._path}: {key!r:.60} declares {found.nbytes} bytes; download it again.")
        return found

    def _is_own(self, name: str) -> bool:
        return "/" not in name and isinstance(self._file.get(name, getlink=True), h5py.HardLink)


@contextmanager
def open_hdf5_file(path: Path) -> Iterator[Hdf5]:
    """Opens a file for the block; read errors inside the block become PoseRftErrors too.

    Raises:
        PoseRftError: no such file, not HDF5, damaged, or a dataset that the block asks for is missing.
    """
    size = door.check_file(path)
    try:
        with limits.bounded(path, size), h5py.File(path, "r") as file:
            yield Hdf5(file, path, size)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        cause = " ".join(str(error).split())[:160]
        raise PoseRftError(f"{path} is damaged or lacks a variable ({cause}); download it again.") from None


def read_datasets(path: Path, names: tuple[str, ...]) -> list[Any]:
    """Reads the datasets with these names as arrays.

    Raises:
        As `open_hdf5_file`.
    """
    with open_hdf5_file(path) as file:
        return [file[name][()] for name in names]
