"""`pose-rft doctor data`: checks that everything is there before hours are spent on converting it.

Looks at names and sizes, plans every split (reads annotations, decodes no images), and estimates conversion time and
disk space. A data set's `facts` define what it needs and costs; a reader's error is reported in its own words. The disk
estimate uses the sizes of the release's images, which enter the shards unchanged, or for videos the sizes of frames
encoded in a benchmark. Both estimates only distinguish minutes from hours.
"""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pose_rft.datasets.common.facts import Patterns
from pose_rft.datasets.h36m import facts as h36m
from pose_rft.datasets.registry import DataParams, facts, open_release, reader_class
from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from pose_rft.shards.plan import ShardParams

GIB = 1 << 30
BODY_FILES = ("smpl/*_NEUTRAL.pkl", "J_regressor_h36m.npy")
GENDERED = ("smpl/*_MALE.pkl", "smpl/*_FEMALE.pkl")


@dataclass(frozen=True)
class Finding:
    """One line of the examination: what was looked for, what was found, whether it suffices, and what to do if not."""

    dataset: str
    what: str
    found: str
    ok: bool
    advice: str = ""


@dataclass(frozen=True)
class Examination:
    """All findings; `costs`: samples, seconds and bytes of shards per data set that could be planned; `free` bytes."""

    findings: tuple[Finding, ...]
    costs: Mapping[str, tuple[int, float, int]]
    free: int

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return all(finding.ok for finding in self.findings)


def examine(data: DataParams, datasets: Mapping[str, Any], shards: ShardParams, out: Path) -> Examination:
    """Examines every data set of `datasets` (params.yaml), the body model, and the disk of `out`."""
    findings: list[Finding] = []
    costs: dict[str, tuple[int, float, int]] = {}
    for name in datasets:
        own = list(_examine_set(name, data, datasets, shards, costs))
        findings += own
    findings += _examine_body(data.body_model, any(facts(name).gendered_bodies for name in datasets))
    free = shutil.disk_usage(next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())).free
    needed = sum(cost for _, _, cost in costs.values())
    enough = free >= needed
    advice = "" if enough else f"make room on the disk of {out}, or move data/ to a larger one"
    findings.append(Finding("disk", f"{_size(needed)} for the shards", f"{_size(free)} free", enough, advice))
    return Examination(tuple(findings), costs, free)


def _examine_set(
    name: str,
    data: DataParams,
    datasets: Mapping[str, Any],
    shards: ShardParams,
    costs: dict[str, tuple[int, float, int]],
) -> Iterator[Finding]:
    reader, known = reader_class(name), facts(name)
    where = f"get it from {reader.where_to_get}"
    params = parse(datasets.get(name), reader.Params, f"`datasets.{name}`")
    folder = data.root / params.root
    yield Finding(name, "licence", reader.licence, True)
    yield Finding(name, "folder", str(folder), folder.is_dir(), where)
    if not folder.is_dir():
        return
    for need in known.needs:
        place = data.root / getattr(params, need.other) if need.other else folder
        count = _count(place, need.layouts(params))
        whole = need.fewest(params) if callable(need.fewest) else need.fewest
        fewest = whole if data.source == "releases" else min(whole, 1)
        wanted = " or ".join(need.layouts(params))
        advice = "" if count >= fewest else f"expected {fewest} × {wanted} in {place}; {where}"
        told = f"{count} of {fewest}" if count < fewest else f"{count}"
        yield Finding(name, need.what, told, count >= fewest, advice)
    try:
        release = open_release(name, data, datasets, shards.jpeg_quality)
        samples = 0
        for split in release.params.splits:
            planned = sum(unit.expected for unit in release.units(split))
            samples += planned
            yield Finding(name, f"split {split}", f"{planned} samples planned", planned > 0, where)
    except PoseRftError as problem:
        yield Finding(name, "plan", "not possible", False, str(problem))
        return
    if (cost := known.cost) is not None:
        size = cost.bytes_of_sample(data.root / getattr(params, cost.other) if cost.other else folder)
        costs[name] = (samples, samples / cost.rate / max(shards.workers, 1), samples * size)


def _count(place: Path, patterns: Patterns) -> int:
    """Counts the files that match any pattern; an array file of a whole split counts as all of its videos."""
    if not place.is_dir():
        return 0
    return sum(h36m.VIDEOS if pattern in h36m.ARRAYS else 1 for pattern in patterns for _ in place.glob(pattern))


def _examine_body(folder: Path, gendered: bool) -> Iterator[Finding]:
    """Looks for neutral body and regressor; some data sets' ground truth also needs the male and female bodies."""
    where = (
        "get SMPL from https://smpl.is.tue.mpg.de (licence: non-commercial research), J_regressor_h36m.npy from SPIN"
    )
    for pattern in BODY_FILES + (GENDERED if gendered else ()):
        found = [path.name for path in folder.glob(pattern)] or _by_old_name(folder, pattern)
        yield Finding("body_model", pattern, ", ".join(found) or "missing", bool(found), "" if found else where)


def _by_old_name(folder: Path, pattern: str) -> list[str]:
    """Finds a body under its name in v1.0.0 or v1.1.0: basicModel_neutral_…, basicmodel_m_… or basicmodel_f_…"""
    old = {"NEUTRAL": "neutral", "FEMALE": "f", "MALE": "m"}
    kind = next((letter for word, letter in old.items() if f"_{word}." in pattern), None)
    return [path.name for path in folder.glob(f"smpl/*asic*odel_{kind}_*.pkl")] if kind else []


def table(examination: Examination) -> str:
    """Formats the examination as text for a terminal: one block per data set, with advice below missing items."""
    lines: list[str] = []
    for dataset in dict.fromkeys(finding.dataset for finding in examination.findings):
        own = [finding for finding in examination.findings if finding.dataset == dataset]
        lines.append(f"{dataset}: {'complete' if all(finding.ok for finding in own) else 'INCOMPLETE'}")
        width = max(len(finding.what) for finding in own)
        for finding in own:
            lines.append(f"  {'ok     ' if finding.ok else 'MISSING'}  {finding.what:<{width}}  {finding.found}")
            if not finding.ok and finding.advice:
                lines.append(f"           -> {finding.advice}")
        if dataset in examination.costs:
            samples, seconds, size = examination.costs[dataset]
            lines.append(f"  {samples:,} samples, about {_duration(seconds)} and {_size(size)} of shards")
        lines.append("")
    seconds = sum(seconds for _, seconds, _ in examination.costs.values())
    size = sum(size for _, _, size in examination.costs.values())
    free = _size(examination.free)
    lines.append(f"In all about {_duration(seconds)} of conversion and {_size(size)} of shards; {free} free.")
    missing = _missing(examination.findings)
    lines.append("Everything is there." if not missing else f"Not complete: {', '.join(missing)}.")
    return "\n".join(lines)


def _missing(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.dataset for finding in findings if not finding.ok))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.0f} MiB"
