"""Parquet tables from untrusted sources: the sizes in the footer are checked before any row is built.

A run of one value costs a few bytes whatever its length, and row groups may share pages, so a small file can represent
any number of rows. The footer uses Thrift's compact protocol (Apache Parquet format, `parquet.thrift`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.parsing import DAMAGE

MAGIC, LARGEST_FOOTER, DEEPEST = b"PAR1", 1 << 26, 16
FREE_VALUES, VALUES_PER_BYTE = 20_000_000, 4
FREE_BYTES, INFLATION = 1 << 28, 200
ROW_GROUPS, COLUMNS = 4, 1  # fields of FileMetaData and RowGroup
PLACE, META, VALUES, PLAIN_SIZE = 1, 3, 5, 6  # fields of ColumnChunk and ColumnMetaData


def read_parquet(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Reads the columns of `schema`, which must exist with these types; an empty schema reads all columns.

    Raises:
        door.Missing: no such file. PoseRftError: not Parquet, damaged, different columns, or implausible sizes.
    """
    size = door.check_file(path)
    try:
        _check_footer(path, size)
        found = pl.read_parquet_schema(path)
        for name, kind in schema.items():
            if name not in found or found[name] != kind:
                raise PoseRftError(f"{path} has no column {name!r} of type {kind}; convert again.")
        return pl.read_parquet(path, columns=list(schema) or None, memory_map=False)
    except (pl.exceptions.PolarsError, OSError, *DAMAGE) as error:
        raise PoseRftError(f"{path} cannot be read ({_short(error)}).") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a Rust panic, which is not a subclass of Exception
            raise
        raise PoseRftError(f"{path} cannot be read ({_short(error)}).") from None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


def _check_footer(path: Path, size: int) -> None:
    """
    Raises:
        ValueError, struct.error, IndexError: no Parquet footer, or it declares more than the file can hold.
    """
    with door.open_file(path) as file:
        file.seek(max(size - 8, 0))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > min(size, LARGEST_FOOTER):
            raise ValueError("it does not end as Parquet does")
        file.seek(size - 8 - length)
        meta = _Thrift(file.read(length)).record(0)
    values = plain = 0
    for chunk in _columns(meta):
        if chunk.get(PLACE):
            raise ValueError("it keeps columns in another file")
        values += max(chunk[META][VALUES], 0)
        plain += max(chunk[META][PLAIN_SIZE], 0)
    if values > FREE_VALUES + VALUES_PER_BYTE * size or plain > FREE_BYTES + INFLATION * size:
        raise ValueError(f"it declares {values} values of {plain} bytes in {size} bytes")


def _columns(meta: dict[int, Any]) -> Iterator[dict[int, Any]]:
    for group in meta.get(ROW_GROUPS, ()):
        yield from group[COLUMNS]


class _Thrift:
    """Parser for the part of Thrift's compact protocol that a footer uses."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def record(self, depth: int) -> dict[int, Any]:
        """Reads a struct: field number → value."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError("its footer nests absurdly")
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            if count > len(self.content):
                raise ValueError("its footer declares a list longer than itself")
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.record(depth + 1)
        raise ValueError(f"its footer holds a value of type {kind}")

    def _byte(self) -> int:
        self.position += 1
        return self.content[self.position - 1]

    def _bytes(self, length: int) -> bytes:
        found = self.content[self.position : self.position + length]
        if len(found) != length:
            raise ValueError("its footer is cut")
        self.position += length
        return found

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its footer holds a number beyond 64 bits")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
