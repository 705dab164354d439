"""Writes MATLAB v5 and v7.3 files for the miniature releases, byte for byte reproducible.

v7.3 is HDF5 behind a 512-byte user block whose first 128 bytes are MATLAB's header. Arrays are stored transposed, and
a cell array is a dataset of references into the group `#refs#`. Source: docs/formats.md, Pickles and MATLAB files.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from pose_rft.io.atomic import write_bytes

# As MATLAB writes it, with a fixed date.
TEXT = "MATLAB {} MAT-file, Platform: GLNXA64, Created on: Mon Jan  5 00:00:00 2015"
CLASSES = {"uint8": "uint8", "float64": "double", "float32": "single", "int32": "int32"}


def struct_array(elements: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns a 1xN MATLAB struct array; all elements have the same fields, as MATLAB stores one field list.

    Raises:
        ValueError: the elements have different fields.
    """
    fields = list(elements[0]) if elements else []
    if any(list(element) != fields for element in elements):
        raise ValueError("all elements of a struct array have the same fields; use an empty array for a missing one")
    array = np.zeros((1, len(elements)), dtype=[(name, object) for name in fields])
    for i, element in enumerate(elements):
        array[0, i] = tuple(element.values())
    return array


def cell_column(items: Sequence[Any]) -> np.ndarray:
    """Returns an Nx1 MATLAB cell array."""
    array = np.empty((len(items), 1), dtype=object)
    for i, item in enumerate(items):
        array[i, 0] = item
    return array


def write_v5(path: Path, variables: Mapping[str, Any], compress: bool = False) -> None:
    """Writes a v5 file. scipy puts the current time into the header; a fixed header replaces it. With `compress`, the
    bytes depend on the zlib build."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, dict(variables), do_compression=compress, oned_as="row")
    content = bytearray(buffer.getvalue())
    content[:116] = TEXT.format("5.0").encode().ljust(116)
    write_bytes(path, bytes(content))


def write_v73(path: Path, variables: Mapping[str, np.ndarray | Sequence[np.ndarray]]) -> None:
    """Writes a v7.3 file: arrays as numeric variables, sequences of arrays as (N, 1) cell arrays.

    Arrays have MATLAB's shape; an array that occurs repeatedly in a sequence is stored once.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if isinstance(value, np.ndarray):
                _numeric(file, name, value)
            else:
                _cell(file, name, value)
    content = bytearray(buffer.getvalue())
    header = (TEXT.format("7.3") + " HDF5 schema 1.00 .").encode().ljust(116) + b"\x00" * 8 + b"\x00\x02IM"
    content[:128] = header
    write_bytes(path, bytes(content))


def _numeric(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    # Unlike in MATLAB, large arrays are not compressed: compressed bytes would depend on the zlib build.
    stored = group.create_dataset(name, data=np.ascontiguousarray(array.T))
    stored.attrs["MATLAB_class"] = np.bytes_(CLASSES[array.dtype.name])
    return stored


def _cell(file: h5py.File, name: str, items: Sequence[np.ndarray]) -> None:
    group = file.require_group("#refs#")
    stored: dict[int, h5py.Reference] = {}
    references = np.empty((len(items), 1), dtype=h5py.ref_dtype)
    for row, item in enumerate(items):
        if id(item) not in stored:
            stored[id(item)] = _numeric(group, f"{name}_{len(stored)}", item).ref
        references[row, 0] = stored[id(item)]
    cell = file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
    cell.attrs["MATLAB_class"] = np.bytes_("cell")
