"""Converts a release to shards: planned in advance, distributed over workers, resumable, and published atomically.

Everything is built in a scratch folder. A killed conversion resumes from its complete shards if the plan (units,
versions, parameters, the converter's own code) is unchanged, and produces the same bytes as an uninterrupted one. The
finished folder is moved into place by one rename.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pose_rft.code import code_digest
from pose_rft.datasets.common.base import DatasetReader, Unit, rows_of
from pose_rft.datasets.registry import DataParams, open_release, reader_class
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.find import files_below
from pose_rft.io.json_files import read_json
from pose_rft.io.lock import alone_in
from pose_rft.progress import Progress
from pose_rft.record import SCHEMA_VERSION, Defect, Record
from pose_rft.shards.executors import map_jobs
from pose_rft.shards.index import as_defects, as_index, write_defects, write_index
from pose_rft.shards.inventory import ReleaseMonitor, take_inventory
from pose_rft.shards.manifest import CONVERTER_VERSION, DEFECTS, INDEX, Manifest, Marker, marker_name
from pose_rft.shards.place import check_replaceable, move, sweep
from pose_rft.shards.plan import PlannedShard, ShardParams, plan_digest, plan_shards
from pose_rft.shards.stats import statistics
from pose_rft.shards.verify import verify
from pose_rft.shards.writer import complete, read_rows, write_shard

PLAN = "plan.json"  # in scratch: identifies the conversion that the shards there belong to
WITHOUT_EFFECT = ("max_defect_rate", "splits")  # reader params that do not change the bytes of a split's shards


@dataclass(frozen=True)
class ConversionSummary:
    """A finished folder of shards; `reused`: the number of shards that an earlier, interrupted run had completed."""

    folder: Path
    manifest: Manifest
    reused: int

    @property
    def metrics(self) -> dict[str, Any]:
        """DVC metrics: samples, defects, shards, and the statistics of the split."""
        manifest = self.manifest
        return {
            "samples": manifest.samples,
            "defects": sum(manifest.defects.values()),
            "shards": len(manifest.shards),
            "expected": manifest.expected,
            "bytes": manifest.bytes,
            "defects_by_reason": dict(manifest.defects),
            **manifest.statistics,
        }


def convert_release(
    name: str, split: str, out: Path, data: DataParams, datasets: Mapping[str, Any], shards: ShardParams
) -> ConversionSummary:
    """Converts one split outside the pipeline; unfinished work is kept beside `out` until it is complete.

    Args:
        datasets: the section of params.yaml; the reader's defaults fill what it lacks for `name`. The split need not be
            among those that it lists.
    Raises:
        PoseRftError: as `open_release` and `convert`.
    """
    scratch = atomic.beside(out, "scratch")  # rejects an invalid `out` before the slow inventory of the release
    choices = dict(datasets.get(name) or {})
    if "splits" in reader_class(name).Params.model_fields:  # label files and tars define their own splits
        choices["splits"] = [split]
    release = open_release(name, data, {name: choices}, shards.jpeg_quality)
    files: list[Path | str] = [*release.inventory(), *files_below(data.body_model)]
    inventory = take_inventory(name, data.root, files)
    summary = convert(release, split, out, shards, release.params.max_defect_rate, inventory.digest, scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    return summary


@dataclass(frozen=True)
class _Conversion:
    release: DatasetReader
    split: str
    plan: tuple[PlannedShard, ...]
    digest: str
    inventory: str
    max_defect_rate: float

    @property
    def name(self) -> str:
        return f"{self.release.dataset} {self.split}"


@dataclass(frozen=True)
class _Job:
    release: DatasetReader
    split: str
    shard: PlannedShard
    folder: Path
    work: Path


def convert(
    release: DatasetReader,
    split: str,
    out: Path,
    shards: ShardParams,
    max_defect_rate: float,
    inventory_digest: str,
    scratch: Path,
) -> ConversionSummary:
    """Writes the split's shards, index, defects and manifest to the folder `out`, all or nothing.

    Args:
        max_defect_rate: largest allowed share of defects among all rows (samples and defects).
        inventory_digest: identifies the state of the release on disk.
        scratch: folder for unfinished work; a later call with the same arguments resumes there.
    Raises:
        PoseRftError: too many defects, no sample, a duplicate key, an unreadable or changing release, a full disk, a
            dead worker, another conversion in the same scratch, or an `out` that holds something else.
    """
    watch = ReleaseMonitor(release.dataset, release.inventory)
    plan = plan_shards(release.units(split), shards.samples_per_shard)
    digest = plan_digest(
        plan,
        dataset=release.dataset,
        split=split,
        schema=SCHEMA_VERSION,
        converter=CONVERTER_VERSION,
        jpeg_quality=shards.jpeg_quality,
        inventory=inventory_digest,
    )
    conversion = _Conversion(release, split, plan, digest, inventory_digest, max_defect_rate)
    identity = _identity(conversion, watch.state)
    try:
        check_replaceable(out)
        scratch.mkdir(parents=True, exist_ok=True)
        with alone_in(scratch):
            if _already_there(out, scratch, identity, digest):
                sweep(out)
                return ConversionSummary(out, Manifest.read(out), len(plan))
            folder, work = _prepare(scratch, identity)
            try:
                reused = _make_shards(conversion, folder, work, shards, watch)
            except PoseRftError:
                _check_unchanged(watch, scratch)  # if the release has changed, report that as the cause
                raise
            _check_unchanged(watch, scratch)
            manifest = _finish(conversion, folder, work)
            move(folder, out)
            shutil.rmtree(work, ignore_errors=True)
            return ConversionSummary(out, manifest, reused)
    except OSError as error:
        raise PoseRftError(
            f"{conversion.name}: shards cannot be written ({error.filename or scratch}: {error.strerror or error}); "
            "fix that and run again, which continues where it stopped."
        ) from None


def _make_shards(conversion: _Conversion, folder: Path, work: Path, shards: ShardParams, watch: ReleaseMonitor) -> int:
    """Writes the shards that are not complete yet; returns how many already were."""
    plan = conversion.plan
    todo = [
        _Job(conversion.release, conversion.split, shard, folder, work)
        for shard in plan
        if complete(folder, work, shard.index) is None
    ]
    expected = sum(shard.expected for shard in plan)
    left = sum(job.shard.expected for job in todo)
    with Progress(f"convert {conversion.name}", expected, "samples", start=expected - left) as progress:
        for shard in map_jobs(_make_shard, todo, shards.executor, shards.workers, shards.cluster):
            progress.advance(shard.expected, f"shard {shard.index + 1} of {len(plan)}")
            watch.check_now_and_then()
    return len(plan) - len(todo)


def _make_shard(job: _Job) -> PlannedShard:
    """Reads a shard's units and writes the shard; runs in a worker."""
    items = ((unit.key, item) for unit in job.shard.units for item in _read_unit(job.release, unit, job.split))
    write_shard(job.folder, job.work, job.shard.index, items)
    return job.shard


def _read_unit(release: DatasetReader, unit: Unit, split: str) -> Iterator[Record | Defect]:
    """
    Raises:
        PoseRftError: an operating-system error while reading, which would otherwise be reported as a write error.
    """
    try:
        yield from rows_of(release, unit, split)
    except OSError as error:
        raise PoseRftError(
            f"{release.dataset}: {error.filename or unit.key} cannot be read ({error.strerror or error}); fix the "
            "file or its permission and run again, which continues after the shards that are complete."
        ) from None


def _check_unchanged(watch: ReleaseMonitor, scratch: Path) -> None:
    """As `watch.check`; shards made from a changing release are never reused, even if it changes back."""
    try:
        watch.check()
    except PoseRftError:
        (scratch / PLAN).unlink(missing_ok=True)
        raise


def _already_there(out: Path, scratch: Path, identity: str, plan: str) -> bool:
    """Whether an earlier call with this identity finished `out`, and `out` is still intact."""
    if _stored_identity(scratch) != identity or not verify(out, schema=False).ok:
        return False
    return Manifest.read(out).plan == plan


def _prepare(scratch: Path, identity: str) -> tuple[Path, Path]:
    """Creates the folders of complete shards and of unfinished work; clears what another plan or other code left."""
    folder, work = scratch / "shards", scratch / "work"
    if _stored_identity(scratch) != identity:
        for old in (folder, work):
            shutil.rmtree(old, ignore_errors=True)
        atomic.write_json(scratch / PLAN, {"identity": identity})
    for path in (folder, work):
        path.mkdir(exist_ok=True)
        for unfinished in (unfinished for unfinished in path.iterdir() if ".tmp-" in unfinished.name):
            unfinished.unlink(missing_ok=True)
    return folder, work


def _stored_identity(scratch: Path) -> str | None:
    try:
        return str(read_json(scratch / PLAN, dict)["identity"])
    except (PoseRftError, KeyError):
        return None


def _identity(conversion: _Conversion, state: str) -> str:
    """Digest of plan, reader params, release state and code; shards of different identities are never mixed."""
    params = {k: v for k, v in vars(conversion.release.params).items() if k not in WITHOUT_EFFECT}
    code = code_digest((__name__, type(conversion.release).__module__))
    return hashlib.sha256(f"{conversion.digest} {state} {sorted(params.items())} {code}".encode()).hexdigest()


def _finish(job: _Conversion, folder: Path, work: Path) -> Manifest:
    """Writes index, defects and, last, the manifest beside the shards.

    Raises:
        PoseRftError: too many defects, no sample, or a key in two shards; the tables stay in scratch for inspection.
    """
    markers = [_marker(folder, shard.index) for shard in job.plan]
    # Rows are converted to columns shard by shard: as Python objects, the rows of a whole release take gigabytes.
    samples, missing = [], []
    for shard in job.plan:
        content = read_rows(work, shard.index)
        samples.append(as_index(content["rows"]))
        missing.append(as_defects(content["defects"]))
    defects = write_defects(folder / DEFECTS, missing)
    index = write_index(folder / INDEX, samples)
    reasons = Counter(defects["reason"].to_list())
    _check_defects(job, len(index), reasons, defects, folder / DEFECTS)
    if len(twice := index.filter(index["key"].is_duplicated())):
        key, units = twice["key"][0], sorted(set(twice.filter(twice["key"] == twice["key"][0])["unit"]))
        raise PoseRftError(
            f"{job.name}: sample key {key} comes {twice['key'].eq(key).sum()} times (units {', '.join(units)}), keys "
            "must be unique; remove the double entry from the release."
        )
    manifest = Manifest(
        dataset=job.release.dataset,
        split=job.split,
        schema=SCHEMA_VERSION,
        converter=CONVERTER_VERSION,
        inventory=job.inventory,
        licence=job.release.licence,
        plan=job.digest,
        samples=len(index),
        expected=sum(shard.expected for shard in job.plan),
        bytes=sum(marker.bytes for marker in markers),
        defects=dict(sorted(reasons.items())),
        shards=tuple(markers),
        statistics=statistics(index),
    )
    manifest.write(folder)
    return manifest


def _check_defects(job: _Conversion, samples: int, reasons: Counter[str], defects: pl.DataFrame, table: Path) -> None:
    count = sum(reasons.values())
    listed = ", ".join(f"{number} × {reason}" for reason, number in reasons.most_common())
    first = "; the first is {unit} {row}: {detail}".format(**defects.row(0, named=True)) if count else ""
    if count > job.max_defect_rate * (samples + count):
        raise PoseRftError(
            f"{job.name}: {count} of {samples + count} rows are defects ({listed}), more than "
            f"`datasets.{job.release.dataset}.max_defect_rate` = {job.max_defect_rate:g} allows{first}; all are in "
            f"{table}. Fix the release or allow more, and run again."
        )
    if samples == 0:
        raise PoseRftError(
            f"{job.name}: the release gives no sample{f' but defects ({listed}){first}' if count else ''}; look at "
            f"its folder (from {job.release.where_to_get}) and at `datasets.{job.release.dataset}` in params.yaml."
        )


def _marker(folder: Path, index: int) -> Marker:
    marker = Marker.read(folder / marker_name(index))
    if marker is None:
        raise PoseRftError(f"{folder / marker_name(index)} has gone while the conversion ran; run it again.")
    return marker
