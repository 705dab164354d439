"""Validates the shards: do they match the releases, and is every sample consistent in itself?

Reads every sample once. A check's verdict is `ok`, `note` (worth knowing but no error, normal in real releases) or
`failed`. Limits come from the releases' own precision: Human3.6M's 3D joints match its 2D joints within 0.01 px under
its own lens model, MPI-INF-3DHP's arms and legs within 1 px; fitted bodies need not match an image's joints exactly.
Counts are compared with the published ones; a difference without known explanation fails if `strict`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.datasets.common.facts import ALL, Published
from pose_rft.datasets.registry import facts
from pose_rft.errors import PoseRftError
from pose_rft.params import Section
from pose_rft.progress import Progress
from pose_rft.shards.executors import map_jobs
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.manifest import INDEX
from pose_rft.shards.plan import ShardParams
from pose_rft.shards.verify import other_columns, shard_problems
from pose_rft.validation.checks import Check, Verdict, verdict
from pose_rft.validation.leakage import between_sets, between_splits
from pose_rft.validation.reprojection import measure

SMPL_REPROJECTION = 0.1  # for the median person, half of the limb joints lie within a tenth of the box side
SIDES_AGREE = 0.8  # not 1, because people bend and lie down; with swapped sides, hardly anybody agrees
FEWEST_VOTES = 20
CAMERA_ERROR = 1e-4
LARGEST_BETA = 10.0
SMPL_JOINTS_MM = 10.0  # for labels regressed from the same body: 3DPW's jointPositions


class ValidateParams(Section):
    """Section `validate` of params.yaml. strict: unexplained differences from published counts, and images shared by
    one data set's training and another's test split, fail instead of being notes."""

    strict: bool


@dataclass(frozen=True)
class _Job:
    folder: Path
    fingerprint: str
    shard: int
    body_model: Path


@dataclass(frozen=True)
class _ShardFindings:
    job: _Job
    problems: tuple[str, ...]
    measurements: pl.DataFrame


def validate(
    folders: Mapping[str, Mapping[str, Path]],
    published: Mapping[str, Sequence[Published]],
    body_model: Path,
    shards: ShardParams,
    strict: bool,
) -> list[Check]:
    """Runs every check of every data set, and returns them in a fixed order.

    Args:
        folders: data set → split → folder of shards.
        published: data set → counts that its owners published; {} for the embedded sample.
        body_model: `data.body_model`.
    Raises:
        PoseRftError: a folder without a finished conversion, or no body model.
    """
    sets = {name: {split: ShardSet(folder) for split, folder in splits.items()} for name, splits in folders.items()}
    jobs = [
        _Job(shard_set.folder, shard_set.fingerprint, number, body_model)
        for splits in sets.values()
        for shard_set in splits.values()
        for number in range(len(shard_set.manifest.shards))
    ]
    findings: dict[Path, list[_ShardFindings]] = {}
    total = sum(len(shard_set) for splits in sets.values() for shard_set in splits.values())
    with Progress("validate", total, "samples") as progress:
        for found in map_jobs(_look_at_shard, jobs, shards.executor, shards.workers):
            findings.setdefault(found.job.folder, []).append(found)
            progress.advance(found.measurements.height)
    checks: list[Check] = []
    for name, splits in sets.items():
        for split, shard_set in splits.items():
            found_here = sorted(findings.get(shard_set.folder, []), key=lambda found: found.job.shard)
            checks += _whole(name, split, shard_set, found_here)
            checks += _counts(name, split, shard_set)
            checks += geometry_checks(name, split, pl.concat([found.measurements for found in found_here]))
        checks += _published(name, splits, published.get(name, ()), strict)
        checks += between_splits(name, {split: shard_set.rows for split, shard_set in splits.items()})
    rows = {name: {split: shard_set.rows for split, shard_set in splits.items()} for name, splits in sets.items()}
    return [*checks, *between_sets(rows, strict)]


def _look_at_shard(job: _Job) -> _ShardFindings:
    """Checks a shard's integrity and measures its samples; runs in a worker."""
    shard_set = _shard_set(job.folder, job.fingerprint)
    rows = shard_set.rows.with_row_index("number").filter(pl.col("shard") == job.shard)
    marker = shard_set.manifest.shards[job.shard]
    problems = shard_problems(job.folder, job.shard, marker, rows, schema=False)
    records = []
    for row in rows.iter_rows(named=True) if not problems else ():
        try:
            records.append(shard_set.record(row["number"]))
        except PoseRftError as error:
            problems.append(str(error))
            continue
        if others := other_columns(records[-1], row):
            problems.append(f"Sample {row['key']} is not what {job.folder / INDEX} says of it ({', '.join(others)}).")
    return _ShardFindings(job, tuple(problems), measure(records, lambda gender: _model(job.body_model, gender)))


@lru_cache(maxsize=2)
def _shard_set(folder: Path, fingerprint: str) -> ShardSet:
    """Loads the index once per folder and state, not once per shard."""
    return ShardSet(folder)


@lru_cache(maxsize=3)
def _model(folder: Path, gender: Any) -> NumpyBody:
    return NumpyBody(folder, gender)


def _whole(name: str, split: str, shard_set: ShardSet, findings: Sequence[_ShardFindings]) -> Iterator[Check]:
    problems = [problem for found in findings for problem in found.problems]
    held = (shard_set.manifest.dataset, shard_set.manifest.split)
    if held != (name, split):  # e.g. a copied folder, which could turn training data into test data
        problems.insert(0, f"{shard_set.folder} holds {' '.join(held)}, expected {name} {split}; convert again.")
    yield Check(name, split, "damaged", len(problems), "0", verdict(not problems), " ".join(problems[:3]))


def _counts(name: str, split: str, shard_set: ShardSet) -> Iterator[Check]:
    manifest = shard_set.manifest
    defects = sum(manifest.defects.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.defects.items())
    complete = manifest.samples + defects == manifest.expected
    remark = f"defects: {reasons}" if defects else ""
    yield Check(name, split, "samples", manifest.samples, f"{manifest.expected}", verdict(complete), remark)
    yield Check(name, split, "defects", defects, "0", "note" if defects else "ok", reasons)


def _published(
    name: str, splits: Mapping[str, ShardSet], published: Sequence[Published], strict: bool
) -> Iterator[Check]:
    """Compares published counts with those found; a split that was not converted is skipped."""
    for count in published:
        wanted = list(splits) if count.split == ALL else [split for split in splits if split == count.split]
        if not wanted:
            continue
        found = count.found(pl.concat([splits[split].rows for split in wanted]))
        defects = sum(sum(splits[split].manifest.defects.values()) for split in wanted)
        unexplained, remark = count.compare(found, defects)
        outcome: Verdict = "ok" if found == count.count else "note"
        if unexplained:
            word = "missing" if unexplained > 0 else "too many"
            remark = "; ".join(filter(None, [remark, f"{abs(unexplained)} {word} without explanation"]))
            outcome = "failed" if strict else "note"
        yield Check(name, count.split, f"published {count.what}", found, f"{count.count}", outcome, remark)


def geometry_checks(name: str, split: str, table: pl.DataFrame) -> Iterator[Check]:
    """Yields checks of a split's measurements (`validation.reprojection`), except those that no sample allows."""

    def worst(by: pl.Series) -> str:
        return f"worst is {table['key'][int(by.fill_null(-np.inf).arg_max() or 0)]}"

    images = table["image_as_declared"].drop_nulls()
    if len(images):
        wrong = int((~images).sum())
        yield Check(name, split, "image size differs", wrong, "0", verdict(wrong == 0))
    wrong = int((~table["finite"]).sum())
    yield Check(name, split, "not finite", wrong, "0", verdict(wrong == 0))
    for column, limit, over in (
        ("camera_error", CAMERA_ERROR, "failed"),
        ("largest_beta", LARGEST_BETA, "note"),
    ):
        values = table[column].fill_nan(np.inf)
        if values.count():
            largest = float(values.max())  # type: ignore[arg-type]
            outcome: Verdict = "ok" if largest <= limit else "failed" if over == "failed" else "note"
            remark = "" if outcome == "ok" else worst(values)
            yield Check(name, split, f"{column} (largest)", largest, f"≤ {limit:g}", outcome, remark)
    limits = facts(name).reprojection or (np.inf, np.inf)
    for column, limit in zip(("reprojection", "reprojection_rest"), limits, strict=True):
        videos = table.select("video", pl.col(column).fill_nan(np.inf)).drop_nulls().group_by("video").median()
        if len(videos):
            video, median = videos.sort(column, "video").row(-1)
            remark = "" if median <= limit else f"worst is {video}"
            yield Check(
                name, split, f"{column} (worst video)", median, f"≤ {limit:g}", verdict(median <= limit), remark
            )
    for column, limit in (("smpl_reprojection", SMPL_REPROJECTION), ("smpl_joints_mm", SMPL_JOINTS_MM)):
        values = table[column].fill_nan(np.inf)
        if values.count():
            median = float(values.median())  # type: ignore[arg-type]
            fits = verdict(median <= limit)
            yield Check(name, split, f"{column} (median)", median, f"≤ {limit:g}", fits, worst(values))
    for column in ("side_by_feet", "side_by_smpl_3d", "side_by_smpl_2d"):
        votes = table[column].drop_nulls()
        if len(votes) >= FEWEST_VOTES:
            agree = float(votes.mean())  # type: ignore[arg-type]
            remark = "" if agree >= SIDES_AGREE else f"left and right are exchanged for many of {len(votes)} people"
            yield Check(name, split, column, agree, f"≥ {SIDES_AGREE:g}", verdict(agree >= SIDES_AGREE), remark)
