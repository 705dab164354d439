"""Files and folders appear whole or not at all: written beside, synced, renamed."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file, and nobody knows the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_parquet(path: Path, table: "pl.DataFrame") -> None:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())


def canonical_json(content: Any, indent: int | None = None) -> str:
    """The same text for the same content: sorted keys, fixed separators, no NaN."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(
        content, sort_keys=True, separators=separators, indent=indent, allow_nan=False, ensure_ascii=False
    )


def write_json(path: Path, content: Any) -> None:
    write_text(path, canonical_json(content, indent=2) + "\n")


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """A fresh folder to fill; it takes the place of `path` only when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
