"""`python -m benchmarks.study GROUP…`: the runs behind docs/results.md and docs/earlier_results.md, and their tables.

A run is `presets/study.yaml` with a few values changed, in its own clone of the committed code. All clones share DVC's
cache and the scratch folder, so what two runs have in common is computed once, and repeating the command resumes what
was interrupted. Runs of all groups execute in parallel, in order, each on its own cores. `table3` comes first: the
other groups use its SFT and retrieval models of seed 0, and a third of its steps. The groups that are compared at equal
time, `opponents`, `distribution` and `main`, are in `equal_time.py`.
"""

import argparse
import json
import os
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from benchmarks import study_figure
from benchmarks.methods import METHODS, WIDE
from flows import hosts
from flows.dvc_stage import Processes
from flows.sweep import override, prepare
from pose_rft.errors import PoseRftError
from pose_rft.evaluation.tables import BASELINE, LABELS, RUNS
from pose_rft.params_file import read_yaml

PRESET = Path("presets/study.yaml")
TUNED = "rft_hygrpo"
SEEDS = (0, 1, 2)
KEPT_LINES = 12


class Run(NamedTuple):
    """label: its table row; overrides: dotted params; evaluated: the graph's runs that it needs (none: the data)."""

    label: str
    overrides: dict[str, Any]
    evaluated: tuple[str, ...] = (BASELINE, TUNED)


# Table 3 uses the preset's steps; comparisons within one seed use a third of them.
SHORT = {"seed.train": 0, "rft.steps": 400}
# With one update per rollout every ratio is exactly 1 and nothing clips: its forms and ε matter from the second on.
TWICE = SHORT | {"rft.updates_per_rollout": 2}
INDEPENDENT = SHORT | {"rft.pose_draws": "independent"}
EIGHT = INDEPENDENT | {"rft.group_size": 8}


def each(label: str, key: str, values: Sequence[Any], common: Mapping[str, Any] = SHORT) -> list[Run]:
    return [Run(label.format(value), {**common, key: value}) for value in values]


def table_3_runs(seeds: Sequence[int]) -> list[Run]:
    return [Run(f"seed {seed}", {"seed.train": seed}, RUNS) for seed in seeds]


DEFAULT = Run("as in the preset", SHORT)
TWO_UPDATES = Run("two updates per rollout", TWICE)
GROUPS: dict[str, list[Run]] = {
    "table3": table_3_runs(SEEDS),
    "poses": [
        DEFAULT,
        *each("K = {}", "rft.poses_per_answer", (4, 16)),
        *each("independent, K = {}", "rft.poses_per_answer", (1, 72), INDEPENDENT),
        *each("independent, G = 8, K = {}", "rft.poses_per_answer", (1,), EIGHT),
        # The preset's learning rate suits gradients with little noise: few poses are also tried with a lower one.
        Run("K = 4, lr 2e-4", {**SHORT, "rft.poses_per_answer": 4, "rft.engine.lr": 2e-4}),
        Run("independent, K = 1, lr 1e-4", {**INDEPENDENT, "rft.poses_per_answer": 1, "rft.engine.lr": 1e-4}),
        Run("independent, G = 8, K = 1, lr 2e-4", {**EIGHT, "rft.poses_per_answer": 1, "rft.engine.lr": 2e-4}),
    ],
    "longer_sft": [  # about the time that HyGRPO takes, spent on SFT instead
        Run("SFT", {"seed.train": 0}, (BASELINE,)),
        Run("SFT, twice the steps", {"seed.train": 0, "sft.steps": 3000}, (BASELINE,)),
        Run("SFT, then HyGRPO", {"seed.train": 0}),
    ],
    "updates": [  # two updates per rollout take 1.45 times as long
        DEFAULT,
        Run("as many seconds as with two updates", SHORT | {"rft.steps": 580}),
        TWO_UPDATES,
    ],
    # All forms have the same weight of the pose term (`rft.pose_weight`): they differ in what the second update clips.
    "pose_ratio": [TWO_UPDATES, *each("pose ratio {}", "rft.pose_ratio", ("sum", "mean", "per_joint"), TWICE)],
    "anchor": [DEFAULT, *each("ratio to the {} policy", "rft.ratio_anchor", ("ref",))],
    "rewards": [
        DEFAULT,
        *(
            Run(f"without the {name} reward", {**SHORT, f"rft.rewards.{name}_weight": 0.0})
            for name in ("joint", "semantic", "format", "text")
        ),
    ],
    "fusion": [DEFAULT, *each("fusion {}", "policy.fusion", ("clip_only", "concat", "channel"))],
    "covariance": [DEFAULT, *each("Σ {}", "policy.covariance", ("low_rank",))],
    "group_size": [  # as many poses per prompt as in the preset
        DEFAULT,
        *(Run(f"G = {g}", {**SHORT, "rft.group_size": g, "rft.poses_per_answer": 144 // g}) for g in (4, 8)),
    ],
    "epsilon": [
        TWO_UPDATES,
        *(Run(f"ε = {e}", {**TWICE, "rft.epsilon": e, "rft.epsilon_pose": e}) for e in (0.05, 0.8)),
    ],
    "beta": [
        DEFAULT,
        *(Run(f"β of poses = {b}", {**SHORT, "rft.beta_pose": b, "rft.beta_spread": b}) for b in (0.0, 0.01, 0.16)),
        *each("β of words = {}", "rft.beta_text", (0.04, 0.8)),
    ],
}


def recall(of: str, direction: str) -> Callable[[Mapping[str, Any]], float]:
    """Returns a reader of the mean recall over K in percent, as in Table 3."""
    return lambda found: float(np.mean(list(found["recall"][of]["full"]["policy"][direction].values())))


COLUMNS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "3DPW MPJPE": lambda found: found["pose_error"]["3dpw"]["policy"]["mpjpe"],
    "3DPW PA": lambda found: found["pose_error"]["3dpw"]["policy"]["pa_mpjpe"],
    "H36M MPJPE": lambda found: found["pose_error"]["h36m_p2"]["policy"]["mpjpe"],
    "H36M PA": lambda found: found["pose_error"]["h36m_p2"]["policy"]["pa_mpjpe"],
    "mRecall T2P": recall("reward", "t2p"),
    "mRecall P2T": recall("reward", "p2t"),
    "judge T2P": recall("judge", "t2p"),
    "judge P2T": recall("judge", "p2t"),
    "joint reward": lambda found: found["heldout_reward"]["joint"]["mean"],
    "semantic": lambda found: 100 * found["heldout_reward"]["semantic"]["mean"],
    "VQA": lambda found: 100 * found["heldout_reward"]["text"]["mean"],
}
STEP_TIME = "s / step"
_preparing = threading.Lock()
_turns: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def reproduce(run: Run, root: Path, targets: Sequence[str] = (), preset: Path = PRESET) -> Path:
    """Runs `dvc repro` for a run's evaluations, or for other targets, in its clone; returns the clone.

    Raises:
        PoseRftError: a stage failed; the message ends with its last lines.
    """
    with _preparing:  # two runs with the same values share a clone, and the second finds everything done
        clone = prepare(root, override(read_yaml(root / preset), run.overrides))
        turn = _turns[clone]
    with turn:
        _repro(run, clone, targets)
    return clone


def _repro(run: Run, clone: Path, targets: Sequence[str]) -> None:
    targets = targets or [f"evaluate@{name}" for name in run.evaluated] or ["validate"]
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    with hosts.core_share() as cores:
        processes = Processes()
        child = processes.start([sys.executable, "-m", "dvc", "repro", *targets], clone, cores)
        assert child.stdout is not None
        with (clone / "study.log").open("a", buffering=1) as log:
            for line in child.stdout:
                log.write(line)
                lines.append(line)
                if line.startswith("Running stage"):
                    print(f"[{run.label}] {line.strip()}", flush=True)
        processes.finished(child)
    if child.wait() != 0:
        raise PoseRftError(f"{run.label} failed in {clone}: {''.join(lines)}")


def numbers(
    clone: Path, name: str, columns: Mapping[str, Callable[[Mapping[str, Any]], float]] = COLUMNS
) -> dict[str, float]:
    found = json.loads((clone / f"results/evaluate_{name}/metrics.json").read_text())
    steps = map(json.loads, (clone / f"results/{name}/log.jsonl").read_text().splitlines())
    seconds = float(np.median([step["seconds"] for step in steps]))
    return {column: read(found) for column, read in columns.items()} | {STEP_TIME: seconds}


def table(rows: Mapping[str, Sequence[str]], *more: str) -> str:
    columns = [*COLUMNS, *more]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items())])


def spread(values: Sequence[float], form: str) -> str:
    """Formats the mean, with ± standard deviation if there are several values."""
    mean = f"{np.mean(values):{form}}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):{form.lstrip('+')}}"


def table_3(found: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Returns Table 3 over seeds, with each run's change in percent against its own SFT."""
    rows = {LABELS[name]: [spread([seed[name][c] for seed in found], ".1f") for c in COLUMNS] for name in RUNS}
    for name in (run for run in RUNS if run.startswith("rft")):
        changes = [[100 * (seed[name][c] / seed[BASELINE][c] - 1) for seed in found] for c in COLUMNS]
        rows[f"{LABELS[name]}, change in %"] = [spread(change, "+.1f") for change in changes]
    return table(rows)


def table_of(runs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Returns one row per run: its metrics, in brackets the change in percent from the SFT it started with, its speed.

    A run of SFT alone is compared with the first row's SFT.
    """
    rows = {}
    first = next(iter(runs.values()))
    for label, run in runs.items():
        before = (run if TUNED in run else first)[BASELINE]
        after = run.get(TUNED, run[BASELINE])
        cells = [f"{after[c]:.1f} ({100 * (after[c] / before[c] - 1):+.1f})" for c in COLUMNS]
        rows[label] = [*cells, f"{after[STEP_TIME]:.2f}"]
    return table(rows, STEP_TIME)


def by_error(clones: Sequence[Path]) -> str:
    """Shows where HyGRPO helps: errors in mm before and after, per quarter of the pictures of both test sets.

    Pictures are ordered by the mean of both errors: by the first alone, chance would look like a gain in the worst.
    """
    tables = []
    for clone in clones:
        before, after = (
            pl.read_parquet(clone / f"results/evaluate_{name}/image_pose.parquet").select(
                "dataset", "key", pl.col("mpjpe", "pa_mpjpe").name.suffix(f"_{name}")
            )
            for name in (BASELINE, TUNED)
        )
        tables.append(before.join(after, on=["dataset", "key"]).drop("dataset", "key"))
    both = pl.concat(tables)
    rank = (pl.col(f"mpjpe_{BASELINE}") + pl.col(f"mpjpe_{TUNED}")).rank("ordinal") - 1
    quarters = both.with_columns((4 * rank // pl.len()).alias("quarter")).group_by("quarter").mean().sort("quarter")
    lines = ["| quarter of the pictures | MPJPE | PA-MPJPE |", "|---|---:|---:|"]
    for row, label in zip(quarters.iter_rows(named=True), ("best", "second", "third", "worst"), strict=True):
        cells = []
        for error in ("mpjpe", "pa_mpjpe"):
            first, then = row[f"{error}_{BASELINE}"], row[f"{error}_{TUNED}"]
            cells.append(f"{first:.0f} → {then:.0f} ({100 * (then / first - 1):+.1f} %)")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def trainings(group: str, runs: Sequence[Run], clones: Sequence[Path]) -> dict[str, list[Path]]:
    """Returns what a figure shows: label -> results folders of its RFT runs, one per seed."""
    if group == "table3":
        return {
            LABELS[name]: [clone / f"results/{name}" for clone in clones] for name in RUNS if name.startswith("rft")
        }
    return {
        run.label: [clone / f"results/{TUNED}"]
        for run, clone in zip(runs, clones, strict=True)
        if TUNED in run.evaluated
    }


def report(group: str, runs: Sequence[Run], clones: Sequence[Path], figures: Path | None) -> None:
    found = {
        run.label: {name: numbers(clone, name) for name in run.evaluated}
        for run, clone in zip(runs, clones, strict=True)
    }
    shown = table_of(found) if group != "table3" else f"{table_3(list(found.values()))}\n\n{by_error(clones)}"
    print(f"\n{group}\n\n{shown}\n", flush=True)
    if figures is not None:
        study_figure.draw(trainings(group, runs, clones), figures / f"study_{group}.png")


def clones_of(groups: Mapping[str, Sequence[Run]]) -> dict[str, Run]:
    """Returns one run per set of overrides, with all evaluations that any group needs of it, in the groups' order."""
    wanted: dict[str, Run] = {}
    for run in (run for runs in groups.values() for run in runs):
        known = wanted.setdefault(str(run.overrides), run)
        evaluated = tuple(dict.fromkeys((*known.evaluated, *run.evaluated)))
        wanted[str(run.overrides)] = known._replace(evaluated=evaluated)
    return wanted


def study(groups: Mapping[str, Sequence[Run]], root: Path, figures: Path | None) -> list[str]:
    """Runs all groups and reports each as soon as it is done; returns the failures, which stop no other group."""
    # What all runs share is computed first: in parallel, two runs would both compute it.
    first = next(iter(groups.values()))[0]
    reproduce(first._replace(label="shared", evaluated=first.evaluated[:1] if "table3" not in groups else ()), root)
    failed = []
    with ThreadPoolExecutor(hosts.side_by_side()) as pool:
        started: dict[str, Future[Path]] = {
            choices: pool.submit(reproduce, run, root) for choices, run in clones_of(groups).items()
        }
        for group, runs in groups.items():
            try:
                clones = [started[str(run.overrides)].result() for run in runs]
            except PoseRftError as error:
                failed.append(f"{group}: {error}")
            else:
                report(group, runs, clones, figures)
    return failed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.study", description=__doc__)
    parser.add_argument("groups", nargs="+", choices=[*GROUPS, *METHODS])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="of table3")
    parser.add_argument(
        "--figures",
        type=Path,
        help="folder for study_GROUP.png: held-out rewards over the steps, of equal-time groups reliability",
    )
    timed = parser.add_argument_group("equal-time groups")
    timed.add_argument("--wide", action="store_true", help="networks and batches that fill a GPU")
    timed.add_argument("--preset", type=Path, default=PRESET, help="another preset, such as params.yaml")
    timed.add_argument("--steps", type=int, default=400, help="steps of the preset's own method: the clock")
    timed.add_argument("--starts", type=int, help="only the first so many")
    options = parser.parse_args(arguments)
    from benchmarks import equal_time  # needs this module

    root = Path.cwd()
    os.environ.setdefault("POSE_RFT_SCRATCH", str(root / ".scratch"))
    groups = {group: GROUPS[group] for group in dict.fromkeys(options.groups) if group in GROUPS}
    if "table3" in groups:
        groups["table3"] = table_3_runs(options.seeds)
    failed = []
    try:
        failed += study(groups, root, options.figures) if groups else []
        for group in (group for group in dict.fromkeys(options.groups) if group in METHODS):
            size = equal_time.Size(options.preset, WIDE if options.wide else {}, options.steps, options.starts)
            equal_time.study(group, root, size, options.figures)
    except PoseRftError as error:
        failed.append(str(error))
    if failed:
        sys.exit("\n".join(f"error: {line}" for line in failed))


if __name__ == "__main__":
    main()
