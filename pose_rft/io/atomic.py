"""Atomic writes: files and folders are written to a temporary name in the same folder, synced, then renamed.

The temporary name is unpredictable and must not exist yet, so a link that another account planted in a shared folder is
never followed. The mode is that of any new file (umask, the folder's default ACL).
"""

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pose_rft.errors import PoseRftError

if TYPE_CHECKING:
    import polars as pl


def beside(path: Path, kind: str) -> Path:
    """Returns the hidden path `.NAME.KIND` in the folder of `path`.

    Raises:
        PoseRftError: `path` does not name a file (`.`, `..`, `/`).
    """
    if path.name in ("", ".."):
        raise PoseRftError(f"Nothing can be written as {str(path)!r}; give a name to write to.")
    return path.with_name(f".{path.name}.{kind}")


def unfinished(path: Path) -> Path:
    """Returns a temporary path beside `path`, with 64 random bits in its name; raises as `beside`."""
    return beside(path, f"tmp-{os.urandom(8).hex()}")


def create(path: Path) -> BinaryIO:
    """Creates a new file and opens it for writing.

    Raises:
        FileExistsError: the name is taken, even if only by a dangling link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    temporary = unfinished(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with create(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # the error of a full disk names no file, and the temporary name tells users nothing
        raise
    finally:
        with suppress(OSError):  # on a read-only disk, unlink fails even if the file does not exist
            temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_parquet(path: Path, table: "pl.DataFrame") -> None:
    """Writes a Parquet table atomically."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())


def canonical_json(content: Any, indent: int | None = None) -> str:
    """Serialises to JSON, the same text for the same content: sorted keys, fixed separators, no NaN."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(
        content, sort_keys=True, separators=separators, indent=indent, allow_nan=False, ensure_ascii=False
    )


def json_bytes(content: Any, indent: int | None = None) -> bytes:
    """`canonical_json` as UTF-8. Lone surrogates, which UTF-8 cannot encode, are written as JSON escapes."""
    return canonical_json(content, indent).encode("utf-8", "backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """Writes canonical JSON atomically."""
    write_bytes(path, json_bytes(content, indent=2) + b"\n")


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yields a new folder to fill; it replaces `path` only if the block ends without an exception."""
    temporary = unfinished(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
