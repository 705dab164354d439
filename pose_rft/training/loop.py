"""The training loop that all trainings share: steps, progress, log, checkpoints, resume.

A step is a function of its number: all its randomness, including torch's global generator (dropout), derives from
(seed, label, step, rank). A run that is killed and restarted therefore continues with the same batches and ends with
the same weights; its log has each step once.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import polars as pl
import torch

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, door
from pose_rft.io.json_files import parse_json
from pose_rft.progress import Progress
from pose_rft.seeds import derive
from pose_rft.training import checkpoint
from pose_rft.training.checkpoint import Learner


@dataclass(frozen=True)
class StepStats:
    """What one step reports: its loss, the samples it consumed (all ranks), and named numbers for the log."""

    loss: float
    samples: int
    values: Mapping[str, float] = field(default_factory=dict)


def run(
    learner: Learner,
    step_fn: Callable[[int], StepStats],
    total_steps: int,
    scratch: Path,
    save_every: int,
    label: str,
    seed: int,
    stop: Callable[[Mapping[str, float]], str | None] = lambda row: None,
) -> pl.DataFrame:
    """Runs steps 0..total_steps-1, or those that an earlier run left undone, and returns the log.

    Args:
        step_fn: performs one full update (`Engine.backward` and `Engine.step`) for a given step number.
        scratch: holds `checkpoints/` and `log.jsonl`; it must be keyed by everything that the training depends on.
        save_every: steps between checkpoints; the last step is always saved.
        stop: maps the last log row to a reason to stop, or None to continue; must agree on all ranks.
    Returns:
        One row per step: step, lr, loss, seconds (of this step), samples_per_second, and the steps' values.
    Raises:
        PoseRftError: a loss or gradient is not finite, or the checkpoint does not match.
    """
    folder, log_path = scratch / "checkpoints", scratch / "log.jsonl"
    first = checkpoint.restore(learner, folder)
    rows = _rows_before(log_path, first)
    leader = learner.rank == 0
    if leader:
        atomic.write_text(log_path, "".join(json.dumps(row) + "\n" for row in rows))
    learner.module.train()
    saved = first
    with Progress(label, total_steps, "steps", start=first) as progress, _appending(log_path, leader) as log:
        for step in range(first, total_steps):
            if rows and (reason := stop(rows[-1])) is not None:
                if leader:
                    print(f"{label}: stopped after {step} of {total_steps} steps: {reason}", file=sys.stderr)
                if saved != step:
                    checkpoint.save(learner, folder, step)
                break
            began = time.monotonic()
            torch.manual_seed(derive(seed, label, step, learner.rank))
            stats = step_fn(step)
            row = _row(step, learner.lr(step), stats, time.monotonic() - began)
            rows.append(row)
            done = step + 1
            if log is not None:
                log.write(json.dumps(row) + "\n")
                log.flush()
                progress.advance(note=f"loss {stats.loss:.4f}, {row['samples_per_second']:.0f} samples/s")
            if done % save_every == 0 or done == total_steps:
                if log is not None:
                    os.fsync(log.fileno())
                checkpoint.save(learner, folder, done)
                saved = done
    return pl.DataFrame(rows, infer_schema_length=None)


def _row(step: int, lr: float, stats: StepStats, seconds: float) -> dict[str, float]:
    """The log row of a step."""
    row = {"step": step, "lr": lr, "loss": stats.loss, "seconds": seconds}
    row["samples_per_second"] = stats.samples / seconds
    return row | {name: float(value) for name, value in stats.values.items()}


@contextmanager
def _appending(path: Path, leader: bool) -> Iterator[IO[str] | None]:
    """The log file for the leading rank, None for the others."""
    if not leader:
        yield None
        return
    with open(path, "a") as log:
        yield log


def _rows_before(path: Path, step: int) -> list[dict[str, float]]:
    """The log rows of steps 0..step-1; later rows and one cut short by a kill are dropped and run again."""
    rows: list[dict[str, float]] = []
    for line in door.read_file(path).decode("utf-8", "replace").splitlines() if path.is_file() else []:
        if len(rows) == step:
            break
        try:
            row = parse_json(line.encode(), path, dict)
        except PoseRftError:
            row = {}
        if row.get("step") != len(rows):
            raise PoseRftError(
                f"{path} does not hold the steps before {step} one by one, so it is damaged; delete {path.parent} to "
                "start again."
            )
        rows.append(row)
    return rows
