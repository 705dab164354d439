"""Writes one shard: a WebDataset tar, the index rows of its samples, and last the marker that completes it.

The tar is byte-identical to the output of webdataset's TarWriter with clock and user values fixed. It is written here
because importing webdataset imports torch, which takes longer than many a conversion. A shard is written to a temporary
name, synced, checked for the end-of-archive that a truncated tar lacks (WebDataset reads a tar truncated at a member
boundary without complaint), and renamed. A shard without marker does not count.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.json_files import parse_json, read_json
from pose_rft.io.text import InvalidText
from pose_rft.record import Defect, Record
from pose_rft.shards.index import index_row
from pose_rft.shards.manifest import Marker, marker_name, shard_name

BLOCK = 512  # bytes; size of a tar header, and the unit to which members are padded
RECORD = 20 * BLOCK  # a tar ends in two empty blocks, padded to a full record
LONGEST_MEMBER = 100  # characters of a member name in a USTAR header


class _Tar:
    """A tar under construction; tracks the sha256 and the size of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> None:
        self.sha256.update(content)
        self.size += len(content)
        self.file.write(content)

    def add(self, name: str, content: bytes) -> tuple[int, int]:
        """Appends a member; returns (offset of its content, its size) in bytes."""
        self.write(header(name, len(content)))
        offset = self.size
        self.write(content)
        self.write(bytes(-len(content) % BLOCK))
        return offset, len(content)

    def end(self) -> None:
        """Writes two empty blocks, then padding to a full record."""
        self.write(bytes(2 * BLOCK + -(self.size + 2 * BLOCK) % RECORD))


def header(name: str, size: int) -> bytes:
    """Returns the USTAR header of a read-only file of root from 1970. Uses a template: tarfile is 20 times slower."""
    block = bytearray(TEMPLATE)
    block[: len(name)] = name.encode("ascii")
    block[124:135] = b"%011o" % size
    # The checksum is computed with its own field filled with spaces.
    block[148:155] = b"%06o\0" % (sum(block) - sum(block[148:156]) + 8 * ord(" "))
    return bytes(block)


def _template() -> bytes:
    info = tarfile.TarInfo("")
    info.mode, info.uname, info.gname = 0o444, "root", "root"
    return info.tobuf(tarfile.USTAR_FORMAT)


TEMPLATE = _template()


def write_shard(folder: Path, work: Path, index: int, items: Iterable[tuple[str, Record | Defect]]) -> Marker:
    """Writes `NNNNN.tar` and `NNNNN.json` to `folder`; index and defect rows, and temporary files, to `work`.

    Args:
        items: (unit key, record or defect), in the order in which records are stored.
    Raises:
        PoseRftError: the disk is full or not writable, a key is too long or duplicate. No partial file is left behind.
    """
    path = folder / shard_name(index)
    # On a cluster, workers on several machines share the folder.
    temporary = work / f"{path.name}.tmp-{os.uname().nodename}-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            tar = _Tar(file)
            rows, defects = _write_samples(tar, index, items)
            tar.end()
            file.flush()
            os.fsync(file.fileno())
        check_end_of_archive(temporary)
        os.replace(temporary, path)
        content = atomic.canonical_json({"rows": rows, "defects": defects})
        digest = hashlib.sha256(_utf8(content)).hexdigest()
        atomic.write_bytes(rows_path(work, index), atomic.json_bytes({"content": content, "sha256": digest}))
        marker = Marker(path.name, len(rows), tar.size, tar.sha256.hexdigest(), len(defects))
        marker.write(folder / marker_name(index))
        _sync_folder(folder)
        return marker
    except OSError as error:
        raise PoseRftError(
            f"Shard {path} cannot be written ({error.strerror or error}); make room or fix the permission and run "
            "again, which continues after the shards that are complete."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_samples(
    tar: _Tar, index: int, items: Iterable[tuple[str, Record | Defect]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    defects: list[dict[str, Any]] = []
    seen: set[str] = set()
    for unit, item in items:
        if isinstance(item, Defect):
            defects.append(asdict(item))
            continue
        if len(item.key) + len("..json") > LONGEST_MEMBER:
            raise PoseRftError(f"Sample key {item.key} of {item.dataset} is longer than a tar header can hold.")
        if item.key in seen:
            raise PoseRftError(f"Sample key {item.key} of {item.dataset} comes twice in unit {unit} or its shard.")
        seen.add(item.key)
        try:
            start, members = tar.size, item.to_members()
        except InvalidText as error:
            defects.append(asdict(Defect(unit, item.key, "invalid text", str(error))))
            continue
        offsets = {name: tar.add(f"{item.key}.{name}", members[name]) for name in sorted(members)}
        rows.append(index_row(item, unit, index, start, offsets))
    return rows, defects


def rows_path(work: Path, index: int) -> Path:
    """Path of one shard's index and defect rows, kept until the folder's tables are written from all of them."""
    return work / f"{index:05d}.rows.json"


def read_rows(work: Path, index: int) -> dict[str, list[dict[str, Any]]]:
    """Reads the index and defect rows of a finished shard.

    Raises:
        PoseRftError: the file is missing, or has changed since it was written.
    """
    path = rows_path(work, index)
    stored = read_json(path, dict)
    content = _utf8(str(stored.get("content")))
    if stored.get("sha256") != hashlib.sha256(content).hexdigest():
        raise PoseRftError(f"{path} has changed since the conversion wrote it; run it again.")
    return parse_json(content, path, dict)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def complete(folder: Path, work: Path, index: int) -> Marker | None:
    """Returns the marker of a shard that is complete on disk (marker, size, sha256 and rows agree), else None."""
    marker = Marker.read(folder / marker_name(index))
    path = folder / shard_name(index)
    try:
        if marker is None or path.stat().st_size != marker.bytes:
            return None
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != marker.sha256:
                return None
        content = read_rows(work, index)
        whole = len(content["rows"]) == marker.count and len(content["defects"]) == marker.defects
        return marker if whole else None
    except (OSError, PoseRftError, KeyError, TypeError):
        return None


def check_end_of_archive(path: Path) -> None:
    """Rejects a truncated tar.

    Raises:
        PoseRftError: the tar lacks its end-of-archive.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 2 * BLOCK, 0))
        tail = file.read()
    if size == 0 or size % RECORD or tail.strip(b"\0"):
        raise PoseRftError(f"{path} ends before its end-of-archive: it is truncated; delete it and convert again.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
