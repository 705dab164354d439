"""Reads tables, vectors and strings of FlatBuffers files; every offset is checked before it is followed.

A table begins with the distance back to its vtable. The vtable gives each field's offset in the table, or 0 if the
field is absent and has its default. Source: FlatBuffers' "Internals" page. An offset outside the file is a ValueError.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Table:
    """A table in `data` at byte `at`; fields are identified by their number in the schema, from 0."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - self._read("<i", at)
        self.fields = (self._read("<H", self.vtable) - 4) // 2

    @classmethod
    def root(cls, data: bytes, identifier: bytes) -> "Table":
        """Returns the root table of a file whose bytes 4 to 8 are `identifier`."""
        if data[4:8] != identifier:
            raise ValueError(f"bytes 4 to 8 are {data[4:8]!r}, expected {identifier!r}")
        return cls(data, struct.unpack_from("<I", data)[0])

    def number(self, field: int, code: str, default: float = 0) -> Any:
        """Returns a scalar; `code` as in `struct`, e.g. `i`, `b`, `?`."""
        at = self._field(field)
        return default if at is None else self._read("<" + code, at)

    def text(self, field: int) -> str:
        """Returns a string, empty if absent."""
        return self.vector(field, "u1").tobytes().decode()

    def vector(self, field: int, dtype: str) -> NDArray[Any]:
        """Returns (n,) numbers of a little-endian dtype such as `i4`, without a copy; empty if absent."""
        at = self._follow(field)
        if at is None:
            return np.zeros(0, dtype)
        count, kind = self._read("<I", at), np.dtype("<" + dtype)
        self._check(at + 4, count * kind.itemsize)
        return np.frombuffer(self.data, kind, count, at + 4)

    def table(self, field: int) -> "Table | None":
        """Returns the table that a field refers to; None if absent."""
        at = self._follow(field)
        return None if at is None else Table(self.data, at)

    def tables(self, field: int, most: int) -> list["Table"]:
        """Returns a vector of tables; more than `most` are rejected, because all may share the same few bytes."""
        offsets = self.vector(field, "u4")
        if len(offsets) > most:
            raise ValueError(f"{len(offsets)} tables in one vector, expected at most {most}")
        start = (self._follow(field) or 0) + 4
        return [Table(self.data, start + 4 * index + int(offset)) for index, offset in enumerate(offsets)]

    def _field(self, field: int) -> int | None:
        if field >= self.fields:
            return None
        offset = self._read("<H", self.vtable + 4 + 2 * field)
        return self.at + offset if offset else None

    def _follow(self, field: int) -> int | None:
        at = self._field(field)
        return None if at is None else at + self._read("<I", at)

    def _read(self, code: str, at: int) -> Any:
        self._check(at, struct.calcsize(code))
        return struct.unpack_from(code, self.data, at)[0]

    def _check(self, at: int, size: int) -> None:
        if at < 0 or at + size > len(self.data):
            raise ValueError(f"bytes {at} to {at + size} are wanted of a file of {len(self.data)}")
