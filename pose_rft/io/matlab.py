"""MATLAB files of both versions: v5 (3DHP training, MPII) and v7.3, which is HDF5 (3DHP test set, H36M masks).

The 128-byte header tells which (MAT-File Format, MathWorks); scipy reads only v5, h5py only v7.3. Arrays keep MATLAB's
own shape: HDF5 stores them transposed, so (N, 1, 17, 2) in h5py is (2, 17, 1, N) here.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits
from pose_rft.io.hdf5 import SIGNATURE, Hdf5, open_hdf5_file
from pose_rft.io.matlab_depth import check_depth


def mat_version(path: Path) -> str:
    """Returns `5` or `7.3`, from the file's header.

    Raises:
        PoseRftError: no such file, or not a MATLAB file of either version.
    """
    with door.open_file(path) as file:
        header = file.read(128)
    if header.startswith(SIGNATURE) or header.startswith(b"MATLAB 7.3"):
        return "7.3"
    if len(header) == 128 and header[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return "5"
    raise PoseRftError(f"{path} is not a MATLAB file (v5 or v7.3) but starts with {header[:16]!r}; download it again.")


def read_mat(path: Path) -> dict[str, Any]:
    """Reads all variables of a v5 file, or the top-level datasets of a v7.3 file, in MATLAB's shapes.

    Unpack cells and structs of v5 files with `cells` and `structs`; open large or nested v7.3 files with `open_hdf5`.

    Raises:
        PoseRftError: no such file, not a MATLAB file, or damaged.
    """
    if mat_version(path) == "7.3":
        with open_hdf5(path) as file:
            found = {name: file[name][()].T for name in file.names()}
            for value in found.values():
                _check_real(value)
            return found
    data = door.read_file(path)
    try:
        with limits.bounded(path, len(data)):
            check_depth(data)
            content = scipy.io.loadmat(io.BytesIO(data))
    except PoseRftError:
        raise
    except Exception as error:  # scipy's MatReadError and the errors of its C reader share no base class
        raise PoseRftError(f"{path} is damaged ({type(error).__name__}: {_short(error)}); download it again.") from None
    return {name: value for name, value in content.items() if not name.startswith("__")}


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5]:
    """Opens a v7.3 file as HDF5 (axes reversed); read errors inside the block become PoseRftErrors too.

    Raises:
        PoseRftError: no such file, not v7.3, damaged, or a variable that the block asks for is missing.
    """
    if mat_version(path) != "7.3":
        raise PoseRftError(f"{path} is a MATLAB v5 file, expected v7.3.")
    with open_hdf5_file(path) as file:
        yield file


class Cells:
    """A (N, 1) or (1, N) cell array of a v7.3 file; elements are read on access, in MATLAB's shape."""

    def __init__(self, file: Hdf5, name: str) -> None:
        self._file, self._references = file, file[name][()].ravel()

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, row: int) -> np.ndarray:
        reference = self._references[row]
        if not isinstance(reference, h5py.Reference):
            raise TypeError("a cell array without references")
        element: np.ndarray = self._file[reference][()].T
        return element


def cells(value: Any) -> list[Any]:
    """Returns the elements of a v5 cell array in MATLAB's order; a bare value counts as a cell of one.

    Raises:
        ValueError: an element is complex.
    """
    array = np.asarray(value)
    found = list(array.ravel(order="F")) if array.dtype == object else [value]
    for element in found:
        _check_real(element)
    return found


def structs(value: Any) -> list[dict[str, Any]]:
    """Returns a v5 struct array as one dict per element; an empty or missing struct array gives an empty list.

    Field values are left as they are (arrays of MATLAB's shape); absent fields are not in the dict.
    """
    if value is None:
        return []
    array = np.asarray(value)
    if array.dtype.names is None:
        # An empty struct array may be stored as an empty double, and a cell may wrap the struct.
        return [item for cell in array.ravel(order="F") for item in structs(cell)] if array.dtype == object else []
    names = array.dtype.names
    return [dict(zip(names, item, strict=True)) for item in array.ravel(order="F")]


def number(value: Any) -> float | None:
    """Returns a scalar stored as a 1x1 array, a logical, or text such as '1'; None if it is empty or missing."""
    if value is None:
        return None
    array = np.asarray(value)
    while array.dtype == object and array.size == 1:
        array = np.asarray(array.ravel()[0])
    if array.size == 0:
        return None
    if array.dtype.kind in "US":
        content = str(array.ravel()[0]).strip()
        try:
            return float(content) if content else None
        except ValueError:
            return None
    return float(array.ravel()[0]) if array.dtype.kind in "biuf" else None


def text(value: Any) -> str:
    """Returns a char array as a string; empty if there is none."""
    array = np.asarray(value)
    while array.dtype == object and array.size == 1:
        array = np.asarray(array.ravel()[0])
    return str(array.ravel()[0]) if array.size and array.dtype.kind in "US" else ""


def _check_real(value: Any) -> None:
    """Rejects complex numbers: no release holds any, and numpy would drop their imaginary part on conversion to float.

    Raises:
        ValueError: the value is complex.
    """
    if np.iscomplexobj(value):
        raise ValueError("complex numbers, expected real ones")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
