"""Stores a sample's few small arrays as an .npz that numpy can read too, without zipfile.

The archive is not compressed: small float arrays do not shrink. It is written field by field (PKWARE APPNOTE 4.3) with
a fixed time, so equal arrays give equal bytes. zipfile and np.load would take longer than the rest of reading a sample.

Samples of a data set hold the same arrays in the same shapes, so their archives differ in numbers and checksums only.
Each archive layout is therefore parsed and checked once, cached, and recognised later by the bytes between the numbers;
every array is still verified against its checksum.
"""

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

NPY_PREFIX = 10  # bytes of an .npy file (version 1.0) before the text of its header
NPY_FORM = re.compile(rb"'descr': '([<|][bfiu]\d)', 'fortran_order': False, 'shape': \(([\d, ]*)\)")
ZIP_MEMBER, ZIP_ENTRY, ZIP_END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s2B5H3I5H2I"), struct.Struct("<4s4H2IH")
ZIP_FORM = (20, 0, zipfile.ZIP_STORED, 0, 0x21)  # version 2.0, no flags, 1980-01-01 00:00
BEFORE_CHECKSUM, CHECKSUM = 14, 4  # bytes, in a member's header
MOST_LAYOUTS = 1024  # a mixture of data sets has a few dozen


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns an .npz, the same bytes for the same arrays (np.savez stores the time)."""
    content, directory = bytearray(), bytearray()
    for name, array in arrays.items():
        member = f"{name}.npy".encode()
        stored = _npy_start(array.shape, array.dtype) + np.ascontiguousarray(array).tobytes()
        form = (zlib.crc32(stored), len(stored), len(stored), len(member), 0)
        directory += ZIP_ENTRY.pack(b"PK\1\2", 20, 3, *ZIP_FORM, *form, 0, 0, 0, 0o600 << 16, len(content)) + member
        content += ZIP_MEMBER.pack(b"PK\3\4", *ZIP_FORM, *form) + member + stored
    end = ZIP_END.pack(b"PK\5\6", 0, 0, len(arrays), len(arrays), len(directory), len(content), 0)
    return bytes(content + directory + end)


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """Inverse of `pack`; the arrays are writable copies.

    Raises:
        ValueError, struct.error: not what `pack` writes, or damaged.
    """
    known = _LAYOUTS.get(len(content))
    arrays = known.read(content) if known is not None else None
    if arrays is None:
        layout = _learnt(content)
        arrays = layout.read(content)
        assert arrays is not None
        if len(_LAYOUTS) >= MOST_LAYOUTS:
            _LAYOUTS.clear()
        _LAYOUTS[len(content)] = layout
    return arrays


@lru_cache(maxsize=1024)
def _npy_start(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Returns the bytes of an .npy file before its numbers."""
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


class _View(NamedTuple):
    """Position of an array's numbers in the joined buffer of all arrays."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


@dataclass(frozen=True)
class _Layout:
    """The layout shared by archives of the same length and form.

    pieces: splits an archive into fixed bytes, checksum, fixed bytes and numbers for each member, then its end record.
    fixed: the fixed bytes and the end record. starts: checksum of the bytes before each array's numbers. order: members
    by item size, largest first, so that all are aligned; views: the arrays in that order.
    """

    pieces: struct.Struct
    fixed: tuple[bytes, ...]
    starts: tuple[int, ...]
    order: tuple[int, ...]
    views: tuple[_View, ...]

    def read(self, content: bytes) -> dict[str, np.ndarray] | None:
        """Returns the arrays, or None if the archive has another layout.

        Raises:
            ValueError: an array does not match its checksum.
        """
        found = self.pieces.unpack(content)
        if found[::2] != self.fixed:
            return None
        numbers = found[3::4]
        if tuple(map(zlib.crc32, numbers, self.starts)) != found[1::4]:
            raise ValueError("an array has another checksum")
        joined = bytearray().join([numbers[member] for member in self.order])
        return {name: np.ndarray(shape, dtype, joined, offset) for name, shape, dtype, offset in self.views}


def _learnt(content: bytes) -> _Layout:
    """
    Raises:
        ValueError, struct.error: not what `pack` writes.
    """
    pieces, fixed, starts, arrays = "<", [], [], []
    position = 0
    while content[position : position + 4] == b"PK\3\4":
        _, *form, _, packed, size, length, extra = ZIP_MEMBER.unpack_from(content, position)
        named = position + ZIP_MEMBER.size
        begin = named + length
        name = content[named:begin].decode().removesuffix(".npy")
        if tuple(form) != ZIP_FORM or packed != size or extra:
            raise ValueError(f"{name} is packed otherwise than this format ever is")
        numbers = begin + NPY_PREFIX + int.from_bytes(content[begin + 8 : begin + NPY_PREFIX], "little")
        shape, dtype = _npy_form(content[begin:numbers])
        if numbers + math.prod(shape) * dtype.itemsize != begin + size:
            raise ValueError(f"{name} has not the {size} bytes that its shape {shape} takes")
        after = position + BEFORE_CHECKSUM + CHECKSUM
        fixed += [content[position : position + BEFORE_CHECKSUM], content[after:numbers]]
        pieces += f"{BEFORE_CHECKSUM}sI{numbers - after}s{begin + size - numbers}s"
        starts.append(zlib.crc32(content[begin:numbers]))
        arrays.append((name, shape, dtype))
        position = begin + size
    # The central directory and the end record follow; in a truncated or foreign archive their member count differs.
    end = content[-ZIP_END.size :]
    directory = len(content) - position - ZIP_END.size
    if directory < 0 or ZIP_END.unpack(end)[3] != len(arrays):
        raise ValueError("an archive without its end")
    pieces += f"{directory}x{ZIP_END.size}s"
    order = sorted(range(len(arrays)), key=lambda member: -arrays[member][2].itemsize)
    sizes = [math.prod(arrays[member][1]) * arrays[member][2].itemsize for member in order]
    offsets = accumulate(sizes[:-1], initial=0)
    views = tuple(_View(*arrays[member], offset) for member, offset in zip(order, offsets, strict=False))
    return _Layout(struct.Struct(pieces), (*fixed, end), tuple(starts), tuple(order), views)


def _npy_form(start: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Parses the shape and dtype that an .npy header declares.

    Raises:
        ValueError: not plain numbers as `pack` writes them.
    """
    match = NPY_FORM.search(start)
    if match is not None:
        shape = tuple(int(length) for length in match[2].split(b",") if length.strip())
        dtype = np.dtype(match[1].decode())
        if _npy_start(shape, dtype) == start:
            return shape, dtype
    raise ValueError("an array that is not plain numbers in C order")


_LAYOUTS: dict[int, _Layout] = {}
