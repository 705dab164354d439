"""`--format parquet`: writes the prediction lines as a table with one row for each person in each picture.

Rows are read and written in chunks, so memory use does not grow with the length of a video.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from pose_rft.io import atomic
from pose_rft.predict.store import heads, of_predict, read_lines

NUMBERS = pl.List(pl.Float64)
POINTS = pl.List(NUMBERS)
MATRICES = pl.List(POINTS)
PLAIN: dict[str, Any] = {
    "schema": pl.String, "version": pl.Int64, "input": pl.String, "frame": pl.Int64, "index": pl.Int64,
    "persons": pl.Int64, "track": pl.Int64, "name": pl.String, "kind": pl.String, "time_seconds": pl.Float64,
    "frames_per_second": pl.Float64, "picture_size_px": pl.List(pl.Int64), "smoothed_seconds": pl.Float64,
    "source": pl.String, "model": pl.String, "notice": pl.String, "body_model": pl.String,
    "question": pl.String, "answer": pl.String, "joint_names": pl.List(pl.String),
    "rotation_matrices": MATRICES, "axis_angle_radians": POINTS, "betas": NUMBERS,
    "betas_note": pl.String, "joints_metres_camera": POINTS, "samples_rotation_matrices": pl.List(MATRICES),
}  # fmt: skip
"""Columns for the top-level keys of a line."""
INNER: dict[str, Any] = {
    "spread_degrees": NUMBERS, "std_6d": POINTS, "from": pl.String, "score": pl.Float64, "box_px": NUMBERS,
    "crop_center_px": NUMBERS, "crop_side_px": pl.Float64, "crop_turned_degrees": pl.Float64,
    "point_names": pl.List(pl.String), "points_px_and_confidence": POINTS, "K": POINTS, "transl_metres": NUMBERS,
    "focal_length_from": pl.String, "fitted_to": pl.String,
}  # fmt: skip
"""Columns for the nested values of a line."""
PART = 2_000  # rows


def write_table(lines: Path) -> Path:
    """Writes `NAME.parquet` beside `NAME.jsonl`, atomically.

    Raises:
        PoseRftError: a line is damaged.
    """
    target = lines.with_suffix(".parquet")
    beside = atomic.unfinished(target)
    try:
        with tempfile.TemporaryDirectory(dir=lines.parent, prefix=".parts-") as folder:
            parts = []
            rows = (_row(line) for line in read_lines(lines, heads(lines)))
            for number, part in enumerate(_parts(rows, lines)):
                parts.append(Path(folder) / f"{number:06d}.parquet")
                part.write_parquet(parts[-1])
            pl.scan_parquet(parts).sink_parquet(beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def _parts(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[pl.DataFrame]:
    rows = iter(rows)
    first = True
    while True:
        with of_predict(path):
            if not (part := list(islice(rows, PART))) and not first:
                return
            table = _table(part)
        first = False
        yield table


def _table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    try:
        return pl.DataFrame(rows, schema=PLAIN | INNER)
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from None


def _row(line: dict[str, Any]) -> dict[str, Any]:
    uncertainty, person, camera = (line.get(name) or {} for name in ("uncertainty", "person", "camera"))
    crop, points = person.get("crop") or {}, person.get("points_px_and_confidence") or {}
    spread = uncertainty.get("spread_degrees")
    return {name: line.get(name) for name in PLAIN} | {
        "spread_degrees": spread and [spread[joint] for joint in line["joint_names"]],
        "std_6d": uncertainty.get("std_6d"),
        **{name: person.get(name) for name in ("from", "score", "box_px")},
        **{f"crop_{name}": crop.get(name) for name in ("center_px", "side_px", "turned_degrees")},
        "point_names": list(points) or None,
        "points_px_and_confidence": list(points.values()) or None,
        **{name: camera.get(name) for name in ("K", "transl_metres", "focal_length_from", "fitted_to")},
    }
