"""Checks a folder of shards against its manifest, its index and the schema; every problem is one sentence.

WebDataset itself silently reads a truncated tar as a shorter one; this check detects it.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pose_rft.body.joints import joint_set
from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.record import SCHEMA_VERSION, Record
from pose_rft.shards.index import index_row, read_table
from pose_rft.shards.manifest import DEFECTS, INDEX, Manifest, Marker, marker_name
from pose_rft.shards.stats import statistics
from pose_rft.shards.writer import BLOCK, RECORD

ROUNDED = ("joints2d_visible",)  # counted before confidences are quantised for storage
MEND = "delete {folder} and convert again (or `dvc checkout` it)"


@dataclass(frozen=True)
class VerifyReport:
    """What was checked, and the problems found (none: `ok`)."""

    folder: Path
    shards: int
    samples: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


def verify(folder: Path, schema: bool = True) -> VerifyReport:
    """Compares every shard with marker, manifest and index; with `schema`, also reads every sample as a Record.

    Problems are returned, not raised; a missing manifest or index is one too.
    """
    folder = Path(folder)
    fix = MEND.format(folder=folder)
    try:
        manifest = Manifest.read(folder)
        index = read_table(folder / INDEX)
        defects = read_table(folder / DEFECTS)
    except PoseRftError as error:
        return VerifyReport(folder, 0, 0, (str(error),))
    problems: list[str] = []
    if len(index) == manifest.samples and statistics(index) != manifest.statistics:
        problems.append(f"{folder / INDEX} does not give the statistics of the manifest; {fix}.")
    if manifest.schema != SCHEMA_VERSION:
        problems.append(
            f"{folder} was written with schema {manifest.schema}, this version reads {SCHEMA_VERSION}; {fix}."
        )
    if len(index) != manifest.samples:
        problems.append(f"{folder / INDEX} has {len(index)} rows, the manifest says {manifest.samples}; {fix}.")
    if len(defects) != sum(manifest.defects.values()):
        problems.append(f"{folder / DEFECTS} has {len(defects)} rows, the manifest says otherwise; {fix}.")
    listed = {marker.shard for marker in manifest.shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in listed:
            problems.append(f"Shard {path} is not in the manifest; delete it.")
    samples = 0
    for number, marker in enumerate(manifest.shards):
        rows = index.filter(pl.col("shard") == number)
        problems += shard_problems(folder, number, marker, rows, schema)
        samples += len(rows)
    return VerifyReport(folder, len(manifest.shards), samples, tuple(problems))


def shard_problems(folder: Path, number: int, marker: Marker, rows: pl.DataFrame, schema: bool) -> list[str]:
    """Returns the problems of one shard; rows: the index rows of its samples. See `verify`."""
    fix = MEND.format(folder=folder)
    path = folder / marker.shard
    if Marker.read(folder / marker_name(number)) != marker:
        return [f"Shard {path} has no marker {marker_name(number)} that agrees with the manifest; {fix}."]
    try:
        content = door.read_file(path, marker.bytes + RECORD)
    except door.Unreadable as error:
        return [f"Shard {path} {error.reason}; {fix}."]
    if len(content) < marker.bytes or len(content) % RECORD or content[-2 * BLOCK :].strip(b"\0"):
        return [f"Shard {path} is truncated: {len(content)} bytes of {marker.bytes}; {fix}."]
    if hashlib.sha256(content).hexdigest() != marker.sha256:
        return [f"Shard {path} is damaged: its sha256 is not the manifest's; {fix}."]
    return [f"Shard {path}: {problem}; {fix}." for problem in _member_problems(content, marker, rows, schema)]


def _member_problems(content: bytes, marker: Marker, rows: pl.DataFrame, schema: bool) -> list[str]:
    """Checks that the members are those of the index, at its offsets, and form valid Records."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            stored = {member.name: (member.offset_data, member.size) for member in tar}
    except tarfile.TarError as error:
        return [f"not a tar ({error})"]
    expected = {
        f"{key}.{member['name']}": (member["offset"], member["size"])
        for key, members in zip(rows["key"], rows["members"], strict=True)
        for member in members
    }
    problems = []
    if len(rows) != marker.count:
        problems.append(f"{len(rows)} samples in the index, {marker.count} in its marker")
    if stored != expected:
        names = sorted(set(stored.items()) ^ set(expected.items()))
        problems.append(f"member {names[0][0]} is not where the index says ({len(names)} such entries)")
    elif schema:
        for row in rows.iter_rows(named=True):
            key = row["key"]
            parts = {
                member["name"]: content[member["offset"] : member["offset"] + member["size"]]
                for member in row["members"]
            }
            try:
                record = Record.from_members(parts)
            except PoseRftError as error:
                problems.append(f"sample {key} does not follow the schema ({str(error).rstrip('.')})")
                continue
            if record.key != key:
                problems.append(f"sample {key} holds another key")
            elif others := other_columns(record, row):
                problems.append(f"sample {key} is not what {INDEX} says of it ({', '.join(others)})")
    return problems


def other_columns(record: Record, row: dict[str, Any]) -> list[str]:
    """Returns the index columns that differ from the sample, because filters and statistics trust the index. Keypoint
    sets whose size differs from their joint set's are included."""
    offsets = {member["name"]: (member["offset"], member["size"]) for member in row["members"]}
    start = min(offset for offset, _ in offsets.values()) - BLOCK
    expected = index_row(record, row["unit"], row["shard"], start, offsets)
    others = [name for name, value in expected.items() if value != row[name] and name not in ROUNDED]
    keypoints = {"joints2d": record.joints2d, "joints3d": record.joints3d}
    return others + [name for name, some in keypoints.items() if some and len(some.points) != _joints(some.joint_set)]


def _joints(name: str) -> int | None:
    try:
        return len(joint_set(name))
    except PoseRftError:
        return None
