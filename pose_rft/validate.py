"""Are the shards what the releases promise, and do the samples agree with themselves?

Reads every sample once. A check ends as `ok`, as `note` (worth knowing, no error: real releases have such things), or
as `failed`. Limits come from the releases' own precision: Human3.6M's 3D joints meet its 2D joints within 0.01 px under
its own lens model, MPI-INF-3DHP's within 3 px; bodies fitted to a picture need not meet its joints exactly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from pose_rft.body.smpl import BodyModel, load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.progress import Progress
from pose_rft.releases.base import Release
from pose_rft.shards.executors import map_jobs
from pose_rft.shards.geometry import measure
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.plan import ShardParams
from pose_rft.shards.verify import shard_problems

Verdict = Literal["ok", "note", "failed"]

REPROJECTION_PX = {"h36m": 0.01, "mpi_inf_3dhp": 3.0}
SMPL_REPROJECTION = 0.1  # median person: half of the limb joints within a tenth of the box side
SIDES_AGREE = 0.8  # people bend and lie; exchanged sides agree for hardly anybody
FEWEST_VOTES = 20
CAMERA_ERROR = 1e-4
LARGEST_BETA = 10.0
SUBJECTS_APART = ("h36m", "mpi_inf_3dhp")  # their protocols split by subject; others split by scene, picture or pose


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its value, what it should be, and how it ended; `split` may name two."""

    dataset: str
    split: str
    name: str
    value: float
    expected: str
    verdict: Verdict
    remark: str = ""


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
    published: Mapping[str, Mapping[str, int]],
    body_model: Path,
    shards: ShardParams,
) -> list[Check]:
    """Every check of every data set, in a fixed order.

    Args:
        folders: data set → split → folder of shards.
        published: data set → split → samples that a complete release gives; {} for the embedded sample.
        body_model: `data.body_model`.
    Raises:
        PoseRftError: a folder without finished conversion, no body model.
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
            checks += _whole(name, split, found_here)
            checks += _counts(name, split, shard_set, published.get(name, {}).get(split))
            checks += geometry_checks(name, split, pl.concat([found.measurements for found in found_here]))
        checks += _leakage(name, splits)
    return checks


def published_samples(release: Release, split: str) -> int | None:
    """How many samples the complete release gives under the reader's parameters, where that is published."""
    counts = release.published_counts.get(split, {})
    every = getattr(release.params, "every", 1)
    return counts.get(f"samples_every_{every}", counts.get("samples"))


def _look_at_shard(job: _Job) -> _ShardFindings:
    """A worker's job: the shard's integrity, and the measurements of its samples."""
    shard_set = _shard_set(job.folder, job.fingerprint)
    rows = shard_set.rows.with_row_index("number").filter(pl.col("shard") == job.shard)
    marker = shard_set.manifest.shards[job.shard]
    problems = shard_problems(job.folder, job.shard, marker, rows, schema=False)
    records = []
    for number in rows["number"] if not problems else []:
        try:
            records.append(shard_set.record(number))
        except PoseRftError as error:
            problems.append(str(error))
    return _ShardFindings(job, tuple(problems), measure(records, lambda gender: _model(job.body_model, gender)))


@lru_cache(maxsize=2)
def _shard_set(folder: Path, fingerprint: str) -> ShardSet:
    """The index once per folder and state, not once per shard."""
    return ShardSet(folder)


@lru_cache(maxsize=3)
def _model(folder: Path, gender: Any) -> BodyModel:
    return load_body_model(folder, gender)


def _whole(name: str, split: str, findings: Sequence[_ShardFindings]) -> Iterator[Check]:
    problems = [problem for found in findings for problem in found.problems]
    yield Check(name, split, "damaged", len(problems), "0", _verdict(not problems), " ".join(problems[:3]))


def _counts(name: str, split: str, shard_set: ShardSet, published: int | None) -> Iterator[Check]:
    manifest = shard_set.manifest
    defects = sum(manifest.defects.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.defects.items())
    complete = manifest.samples + defects == manifest.expected
    remark = f"defects: {reasons}" if defects else ""
    yield Check(name, split, "samples", manifest.samples, f"{manifest.expected}", _verdict(complete), remark)
    if published is not None and published != manifest.expected:
        missing = published - manifest.samples
        remark = f"{missing} fewer than published, of which {defects} are defects; see docs/data.md"
        yield Check(name, split, "published", manifest.samples, f"{published}", "note", remark)
    elif published is not None:
        yield Check(name, split, "published", manifest.samples, f"{published}", _verdict(complete), remark)


def geometry_checks(name: str, split: str, table: pl.DataFrame) -> Iterator[Check]:
    """Checks from the measurements of a split (`shards.geometry`); what no sample allows is left out."""

    def worst(by: pl.Series) -> str:
        return f"worst is {table['key'][int(by.fill_null(-np.inf).arg_max() or 0)]}"

    images = table["image_as_declared"].drop_nulls()
    if len(images):
        wrong = int((~images).sum())
        yield Check(name, split, "image size differs", wrong, "0", _verdict(wrong == 0))
    for column, limit, over in (
        ("camera_error", CAMERA_ERROR, "failed"),
        ("largest_beta", LARGEST_BETA, "note"),
        ("reprojection", REPROJECTION_PX.get(name, np.inf), "failed"),
    ):
        values = table[column]
        if values.count():
            largest = float(values.max())  # type: ignore[arg-type]
            verdict: Verdict = "ok" if largest <= limit else "failed" if over == "failed" else "note"
            remark = "" if verdict == "ok" else worst(values)
            yield Check(name, split, f"{column} (largest)", largest, f"≤ {limit:g}", verdict, remark)
    values = table["smpl_reprojection"]
    if values.count():
        median = float(values.median())  # type: ignore[arg-type]
        remark = worst(values)
        fits = _verdict(median <= SMPL_REPROJECTION)
        yield Check(name, split, "smpl_reprojection (median)", median, f"≤ {SMPL_REPROJECTION:g}", fits, remark)
    for column in ("side_by_feet", "side_by_smpl_3d", "side_by_smpl_2d"):
        votes = table[column].drop_nulls()
        if len(votes) >= FEWEST_VOTES:
            agree = float(votes.mean())  # type: ignore[arg-type]
            remark = "" if agree >= SIDES_AGREE else f"left and right are exchanged for many of {len(votes)} people"
            yield Check(name, split, column, agree, f"≥ {SIDES_AGREE:g}", _verdict(agree >= SIDES_AGREE), remark)


def _leakage(name: str, splits: Mapping[str, ShardSet]) -> Iterator[Check]:
    """What two splits of one data set share: keys and pictures must not be, subjects only where the protocol says."""
    names = sorted(splits)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            for column in ("key", "image_digest", "subject"):
                both = shared(splits[first].rows[column], splits[second].rows[column])
                strict = column != "subject" or name in SUBJECTS_APART
                if column == "image_digest" and not len(splits[first].rows[column].drop_nulls()):
                    continue
                verdict: Verdict = "ok" if not both else "failed" if strict else "note"
                remark = f"for instance {both[0]}" if both else ""
                what = {"key": "shared keys", "image_digest": "shared pictures", "subject": "shared subjects"}[column]
                yield Check(name, f"{first}+{second}", what, len(both), "0", verdict, remark)


def shared(first: pl.Series, second: pl.Series) -> list[str]:
    """Values that occur in both, sorted."""
    return sorted(set(first.drop_nulls().unique()) & set(second.drop_nulls().unique()))


def _verdict(good: bool) -> Verdict:
    return "ok" if good else "failed"


def metrics(checks: Sequence[Check]) -> dict[str, Any]:
    """Numbers for DVC: how many checks failed, and every value below `validate.DATASET.SPLIT`."""
    values: dict[str, Any] = {
        "failed": sum(check.verdict == "failed" for check in checks),
        "notes": sum(check.verdict == "note" for check in checks),
    }
    for check in checks:
        name = check.name.split(" (")[0].replace(" ", "_")
        values.setdefault(check.dataset, {}).setdefault(check.split, {})[name] = round(check.value, 6)
    return {"validate": values}


def report(checks: Sequence[Check]) -> str:
    """A Markdown page with one table per data set."""
    failed = [check for check in checks if check.verdict == "failed"]
    lines = ["# Validation of the shards", "", f"{len(checks)} checks, {len(failed)} failed.", ""]
    for dataset in dict.fromkeys(check.dataset for check in checks):
        lines += [f"## {dataset}", "", "| split | check | value | expected | verdict | remark |", f"|{'---|' * 6}"]
        for check in checks:
            if check.dataset == dataset:
                value = f"{check.value:.4g}" if check.value != int(check.value) else f"{int(check.value)}"
                cells = (check.split, check.name, value, check.expected, check.verdict, check.remark.replace("|", "/"))
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def failure(checks: Sequence[Check], where: Path) -> str | None:
    """One sentence about what failed, None if nothing did."""
    failed = [check for check in checks if check.verdict == "failed"]
    if not failed:
        return None
    first = failed[0]
    remark = f": {first.remark}" if first.remark else ""
    return (
        f"{len(failed)} of {len(checks)} checks of the shards failed; the first is {first.dataset} {first.split}, "
        f"{first.name} = {first.value:.4g}, expected {first.expected}{remark} (all of them in {where})."
    )
