"""Assigns units to shards before any work starts.

Units (whole videos, or whole images with all their persons) are sorted by key; each shard is a fixed run of them. So a
shard's content depends on the release and `samples_per_shard` only, and any number of workers writes the same bytes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from pose_rft.datasets.common.base import Unit
from pose_rft.io.atomic import canonical_json
from pose_rft.params import Count, Section
from pose_rft.shards.executors import Executor


class ShardParams(Section):
    """Section `shards`: how releases are converted. `jpeg_quality`: for video frames; other images are not re-encoded.

    cluster: address of a running Dask scheduler (`tls://host:8786`) for the executor `dask`; None: local processes.
    """

    samples_per_shard: Count
    executor: Executor = "process"
    workers: Count
    cluster: str | None = None
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


@dataclass(frozen=True)
class PlannedShard:
    """Shard number `index` holds the samples of `units`, in this order."""

    index: int
    units: tuple[Unit, ...]

    @property
    def expected(self) -> int:
        """Number of samples that the units announce; defects make the actual count smaller."""
        return sum(unit.expected for unit in self.units)


def plan_shards(units: Sequence[Unit], samples_per_shard: int) -> tuple[PlannedShard, ...]:
    """Groups units into runs with at least `samples_per_shard` expected samples each (the last may have fewer).

    A unit is never split: a video longer than a shard makes a longer shard.

    Raises:
        ValueError: units are not sorted by key, or two share a key (a reader's bug).
    """
    keys = [unit.key for unit in units]
    if any(first >= second for first, second in pairwise(keys)):
        raise ValueError("units must be sorted by key, each key once")
    shards: list[PlannedShard] = []
    run: list[Unit] = []
    expected = 0
    for unit in units:
        run.append(unit)
        expected += unit.expected
        if expected >= samples_per_shard:
            shards.append(PlannedShard(len(shards), tuple(run)))
            run, expected = [], 0
    if run:
        shards.append(PlannedShard(len(shards), tuple(run)))
    return tuple(shards)


def plan_digest(shards: Sequence[PlannedShard], **identity: object) -> str:
    """sha256 of the plan and everything else that determines the bytes (`identity`: data set, split, versions, …)."""
    table = [[[unit.key, unit.expected] for unit in shard.units] for shard in shards]
    return hashlib.sha256(canonical_json({"shards": table, "identity": identity}).encode()).hexdigest()
