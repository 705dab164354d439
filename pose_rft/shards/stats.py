"""Statistics of a folder of shards, computed from its index: for metrics, the report and `pose-rft shards stats`."""

from pathlib import Path
from typing import Any

import polars as pl

from pose_rft.shards.index import read_table
from pose_rft.shards.manifest import INDEX, Manifest


def statistics(index: pl.DataFrame) -> dict[str, Any]:
    """Computes counts, sizes (pixels) and visibility (a fraction) as plain numbers; what is absent is left out."""
    result: dict[str, Any] = {
        "images": index["image_digest"].drop_nulls().n_unique(),
        "with_image": int(index["has_image"].sum()),
        "with_smpl": int(index["has_smpl"].sum()),
        "with_joints2d": int(index["has_joints2d"].sum()),
        "with_joints3d": int(index["has_joints3d"].sum()),
        "with_camera": int(index["has_camera"].sum()),
        "subjects": index["subject"].drop_nulls().n_unique(),
        "captions": {kind: int(index[f"captions_{kind}"].sum()) for kind in ("human", "automatic")},
        "dialogues": int(index["has_dialogue"].sum()),
        "turns": int(index["turns"].sum()),
    }
    for name, column in (("image_width", "width"), ("image_height", "height"), ("box_side", "box_side")):
        if len(values := index[column].drop_nulls()):
            quantiles = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}
            result[name] = {key: _number(values.quantile(q, "nearest")) for key, q in quantiles.items()}
    if joints := int(index["joints2d"].sum() or 0):
        result["joints2d_visible"] = round(int(index["joints2d_visible"].sum()) / joints, 4)
    sources = index["smpl_source"].drop_nulls().value_counts().sort("smpl_source")
    if len(sources):
        result["smpl_sources"] = dict(sources.iter_rows())
    flags = index["flags"].explode().drop_nulls().value_counts().sort("flags")
    if len(flags):
        result["flags"] = dict(flags.iter_rows())
    return result


def stats(folder: Path) -> pl.DataFrame:
    """Returns the statistics of one folder as a table of two columns, `what` and `value`.

    Raises:
        PoseRftError: the folder holds no finished conversion.
    """
    manifest = Manifest.read(folder)
    totals = {
        "samples": manifest.samples,
        "expected": manifest.expected,
        "shards": len(manifest.shards),
        "bytes": manifest.bytes,
        "defects": dict(manifest.defects),
    }
    rows = list(_flat(totals | statistics(read_table(folder / INDEX))))
    return pl.DataFrame(rows, schema={"what": pl.String, "value": pl.Float64}, orient="row")


def _flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    rows: list[tuple[str, float]] = []
    for name, value in content.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, float(value)))
    return rows


def _number(value: Any) -> float:
    return round(float(value), 2)
