"""`index.parquet`: one row per sample, with the shard and the offsets of its members, and what they contain.

The index gives random access (one `pread` per member), filters without reading a shard (which samples have an image, a
fit, human captions), and the statistics and leakage checks of a data set.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, door
from pose_rft.io.parquet import read_parquet
from pose_rft.record import Record

ROW_GROUP_SIZE = 50_000  # fixed, because with polars' default the bytes of a file differ from run to run

SCHEMA: dict[str, Any] = {
    "key": pl.String,
    "shard": pl.UInt32,
    "start": pl.Int64,  # of the sample's first tar header; `stop`: end of its last member's content
    "stop": pl.Int64,
    "members": pl.List(pl.Struct({"name": pl.String, "offset": pl.Int64, "size": pl.Int64})),
    "unit": pl.String,
    "split": pl.String,
    "subject": pl.String,
    "sequence": pl.String,
    "camera_id": pl.String,
    "frame": pl.Int64,
    "has_image": pl.Boolean,
    "width": pl.Int32,
    "height": pl.Int32,
    "image_digest": pl.String,  # first 128 bits of sha256 of the encoded image
    "box_side": pl.Float64,  # px
    "has_smpl": pl.Boolean,
    "smpl_source": pl.String,
    "smpl_frame": pl.String,
    "smpl_labelled": pl.Int32,  # labelled joints, of 24
    "has_joints2d": pl.Boolean,
    "joints2d": pl.Int32,
    "joints2d_visible": pl.Int32,  # confidence > 0
    "has_joints3d": pl.Boolean,
    "has_camera": pl.Boolean,
    "has_captions": pl.Boolean,
    "captions_human": pl.Int32,
    "captions_automatic": pl.Int32,
    "has_dialogue": pl.Boolean,
    "turns": pl.Int32,
    "flags": pl.List(pl.String),
}
DEFECT_SCHEMA: dict[str, Any] = dict.fromkeys(("unit", "row", "reason", "detail"), pl.String)


def index_row(
    record: Record, unit: str, shard: int, start: int, offsets: Mapping[str, tuple[int, int]]
) -> dict[str, Any]:
    """Builds a record's index row; offsets: member extension → (offset of its content in the shard, size), bytes."""
    image, smpl, joints2d = record.image, record.smpl, record.joints2d
    kinds = [caption.kind for caption in record.captions]
    return {
        "key": record.key,
        "shard": shard,
        "start": start,
        "stop": max(offset + size for offset, size in offsets.values()),
        "members": [{"name": name, "offset": offset, "size": size} for name, (offset, size) in offsets.items()],
        "unit": unit,
        "split": record.split,
        "subject": record.subject,
        "sequence": record.sequence,
        "camera_id": record.camera_id,
        "frame": record.frame,
        "has_image": image is not None,
        "width": image.width if image else None,
        "height": image.height if image else None,
        "image_digest": image.digest if image else None,
        "box_side": record.box.side if record.box else None,
        "has_smpl": smpl is not None,
        "smpl_source": smpl.source if smpl else None,
        "smpl_frame": smpl.frame if smpl else None,
        "smpl_labelled": int(smpl.valid.sum()) if smpl else None,
        "has_joints2d": joints2d is not None,
        "joints2d": len(joints2d.points) if joints2d else None,
        "joints2d_visible": int(np.sum(joints2d.points[:, -1] > 0)) if joints2d else None,
        "has_joints3d": record.joints3d is not None,
        "has_camera": record.camera is not None,
        "has_captions": bool(kinds),
        "captions_human": kinds.count("human"),
        "captions_automatic": kinds.count("automatic"),
        "has_dialogue": bool(record.dialogue),
        "turns": len(record.dialogue),
        "flags": list(record.flags),
    }


def as_index(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Returns rows of `index_row` as a table."""
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def as_defects(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Returns the fields of `Defect`s as a table."""
    return pl.DataFrame(list(rows), schema=DEFECT_SCHEMA, orient="row")


def write_index(path: Path, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Writes and returns the table of all parts, in shard order; the bytes of the file depend on the rows only."""
    return _write(path, [as_index([]), *parts], ["shard", "start"])


def write_defects(path: Path, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """As `write_index`, for defects."""
    return _write(path, [as_defects([]), *parts], ["unit", "row", "reason", "detail"])


def _write(path: Path, parts: Sequence[pl.DataFrame], order: list[str]) -> pl.DataFrame:
    table = pl.concat(parts, rechunk=True).sort(order, maintain_order=True)
    buffer = io.BytesIO()
    table.write_parquet(buffer, row_group_size=ROW_GROUP_SIZE)
    atomic.write_bytes(path, buffer.getvalue())
    return table


def read_table(path: Path) -> pl.DataFrame:
    """Reads index.parquet or defects.parquet.

    Raises:
        PoseRftError: the file is missing or damaged.
    """
    try:
        return read_parquet(path, DEFECT_SCHEMA if path.name == "defects.parquet" else SCHEMA)
    except door.Missing:
        raise PoseRftError(f"{path} does not exist; run `dvc repro convert` or check out the shards again.") from None
    except PoseRftError as error:
        raise PoseRftError(f"{str(error).rstrip('.')}; delete {path.parent} and convert again.") from None
