"""`python -m benchmarks.study opponents distribution main`: methods at equal wall time, over several seeds.

The clock is the preset's HyGRPO for `--steps`. A probe of a few steps tells what a step of each method takes,
beside as much other work as in the runs themselves, and every method gets as many steps as fit into that time (each
learning rate then ends its cosine there). A probe lies in a clone of its own, so a study that is started again finds
the same.

`opponents` and `distribution` are for choosing: one start, three seeds of RFT, measured on validation sets only. `main`
reads the test sets, with seeds that nothing was chosen with: five of training on each of two rendered worlds.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from benchmarks import study_figure
from benchmarks.methods import HYGRPO, METHODS, Method
from benchmarks.study import COLUMNS, PRESET, Run, numbers, reproduce, spread
from flows import hosts
from flows.sweep import override
from pose_rft.evaluation.tables import BASELINE
from pose_rft.params_file import read_yaml

PROBE_STEPS = 12
START = "SFT, the start"
CHOSEN_WITH = {"seed.train": 21}  # the start of what is chosen
RFT_SEEDS = (1, 2, 3)
# Labels stay those of the preset, so that one reader of the numbers serves both: `3dpw` is its `train`, of 3DPW's kind
# and never trained on, `h36m_p2` BEDLAM's validation part.
VALIDATION = {
    "evaluate.image_sets.3dpw": "3dpw/train",
    "evaluate.image_sets.h36m_p2": "bedlam/val",
    "evaluate.text_set": "posescript/val",
}
FRESH = [{"seed.train": train, "seed.data": data} for train in (31, 32, 33, 34, 35) for data in (5, 6)]


def of_distribution(dataset: str, name: str) -> Callable[[Mapping[str, Any]], float]:
    """NaN where the evaluation has none: of a set that is left out."""
    return lambda found: found.get("distribution", {}).get(dataset, {}).get(name, math.nan)


DISTRIBUTION: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "best of 25": of_distribution("3dpw", "best_of_25_mpjpe"),
    "energy score": of_distribution("3dpw", "energy_score"),
    "90 % covers": of_distribution("3dpw", "coverage_90"),
    "rms z": of_distribution("3dpw", "rms_z"),
    "NLL": of_distribution("3dpw", "nll_per_number"),
}
MEANING: dict[str, Callable[[Mapping[str, Any]], float]] = {
    f"posecode {name}": lambda found, name=name: 100 * found["posecodes"]["policy"][name]  # type: ignore[misc]
    for name in ("precision", "recall")
}
ON_VALIDATION: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "3DPW-like MPJPE": COLUMNS["3DPW MPJPE"],
    "3DPW-like PA": COLUMNS["3DPW PA"],
    "BEDLAM MPJPE": COLUMNS["H36M MPJPE"],
    "BEDLAM PA": COLUMNS["H36M PA"],
    **{name: COLUMNS[name] for name in ("mRecall T2P", "mRecall P2T", "judge T2P", "judge P2T", "VQA")},
    **MEANING,
    **DISTRIBUTION,
}
ON_TEST = {**COLUMNS, **MEANING, **DISTRIBUTION}


class Size(NamedTuple):
    """preset: what all runs change; values: dotted params of all; steps: the clock's; starts: how many (None: all)."""

    preset: Path = PRESET
    values: Mapping[str, Any] = MappingProxyType({})
    steps: int = 400
    starts: int | None = None


FULL = Size()


class Timed(NamedTuple):
    """A method with the steps that fit into the time, and the seconds that one takes."""

    method: Method
    steps: int
    seconds: float


def steps_for(budget: float, seconds: float) -> int:
    """Steps of so many seconds in a budget, to two digits: timing is no finer."""
    steps = max(1.0, budget / seconds)
    unit = 10 ** max(0, math.floor(math.log10(steps)) - 1)
    return max(1, round(steps / unit) * unit)


def timed(methods: Sequence[Method], size: Size, root: Path, pool: ThreadPoolExecutor) -> list[Timed]:
    """Each method's steps in the time that HyGRPO takes for `size.steps`; the same for all seeds.

    Raises:
        PoseRftError: a probe failed.
    """

    def probe(method: Method) -> float:
        overrides = {**size.values, **method.overrides, method.steps: PROBE_STEPS}
        target = method.run.replace("_", "@")
        clone = reproduce(Run(f"timing of {method.label}", overrides), root, [target], size.preset)
        return seconds_per_step(clone, method.run)

    reproduce(Run("what all probes share", dict(size.values)), root, ["sft@gaussian", "retrieval@reward"], size.preset)
    seconds = list(pool.map(probe, [HYGRPO, *methods]))
    budget = size.steps * seconds[0]
    start = override(read_yaml(root / size.preset), dict(size.values))["sft"]["steps"]  # SFT goes on from there
    before = [start if method.run == BASELINE else 0 for method in methods]
    return [
        Timed(method, done + steps_for(budget, each), each)
        for method, done, each in zip(methods, before, seconds[1:], strict=True)
    ]


def seconds_per_step(clone: Path, run: str) -> float:
    lines = (clone / f"results/{run}/log.jsonl").read_text().splitlines()
    return float(np.median([json.loads(line)["seconds"] for line in lines]))


def run_of(entry: Timed, start: Mapping[str, Any]) -> Run:
    overrides = {**start, **entry.method.overrides, entry.method.steps: entry.steps}
    return Run(entry.method.label, overrides, tuple({BASELINE: None, entry.method.run: None}))


def table(
    found: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]], timings: Mapping[str, Timed], names: Sequence[str]
) -> str:
    """A column per method: mean ± standard deviation over runs, in brackets each run's change against its own SFT in %.

    Args:
        found: {label: [{"before" | "after": {column: number}} of each run]}.
    """
    lines = [f"| | {START} | {' | '.join(found)} |", f"|---|{'---:|' * (len(found) + 1)}"]
    first = next(iter(found.values()))
    for name in names:
        cells = [spread([run["before"][name] for run in first], ".2f")]
        for runs in found.values():
            changes = [100 * (run["after"][name] / run["before"][name] - 1) for run in runs]
            cells.append(f"{spread([run['after'][name] for run in runs], '.2f')} ({spread(changes, '+.1f')})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| steps | | {' | '.join(str(timings[label].steps) for label in found)} |")
    lines.append(f"| seconds a step | | {' | '.join(f'{timings[label].seconds:.2f}' for label in found)} |")
    return "\n".join(lines)


def ledger(group: str, timings: Sequence[Timed], starts: Sequence[Mapping[str, Any]], measured_on: str) -> str:
    """Lines for docs/results.md: what was run with which seeds and values, and on what it was measured."""
    seeds = "; ".join(", ".join(f"{key} {value}" for key, value in start.items() if "seed" in key) for start in starts)
    lines = [f"{group}, measured on {measured_on}; {seeds}"]
    for entry in timings:
        values = ", ".join(f"{key} = {value}" for key, value in entry.method.overrides.items()) or "the preset"
        lines.append(f"- {entry.method.label} ({entry.method.run}, {entry.steps} steps): {values}")
    return "\n".join(lines)


def shared(starts: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], list[Mapping[str, Any]]]]:
    """What is made first, since two runs side by side would both make it: targets, and the starts that need them."""
    worlds = {start.get("seed.data"): start for start in reversed(starts)}
    trained = {(start.get("seed.data"), start.get("seed.train")): start for start in reversed(starts)}
    models = ["sft@gaussian", "retrieval@reward", "retrieval@judge"]
    return [(["validate"], list(worlds.values())[::-1]), (models, list(trained.values())[::-1])]


def study(group: str, root: Path, size: Size = FULL, figures: Path | None = None) -> None:
    """Runs a group and prints its table and its ledger; `figures`: a folder for its reliability diagram.

    Raises:
        PoseRftError: a run failed; what is done stays, and the same command continues.
    """
    main = group == "main"
    starts = FRESH if main else [{**CHOSEN_WITH, **VALIDATION, "rft.seed": seed} for seed in RFT_SEEDS]
    starts = [{**size.values, **start} for start in starts[: size.starts]]
    columns = ON_TEST if main else ON_VALIDATION

    def made(run: Run, targets: Sequence[str] = ()) -> Path:
        return reproduce(run, root, targets, size.preset)

    def measured(entry: Timed, start: Mapping[str, Any]) -> Path:
        """Its numbers are printed at once: a machine that is lost in the middle then leaves them in the log."""
        clone = made(run_of(entry, start))
        values = numbers(clone, entry.method.run, columns)
        print(
            f"[{entry.method.label}] {', '.join(f'{name} {value:.2f}' for name, value in values.items())}", flush=True
        )
        return clone

    with ThreadPoolExecutor(hosts.side_by_side()) as pool:
        timings = timed(METHODS[group], size, root, pool)
        for targets, some in shared(starts):
            first = [pool.submit(made, Run("what runs share", dict(start)), targets) for start in some]
            for future in first:
                future.result()
        clones: dict[str, list[Future[Path]]] = {entry.method.label: [] for entry in timings}
        for start in starts:  # not method by method: what a method trains beside RFT is then there for its next start
            for entry in timings:
                clones[entry.method.label].append(pool.submit(measured, entry, start))
        folders = {label: [future.result() for future in futures] for label, futures in clones.items()}
    by_label = {entry.method.label: entry for entry in timings}
    ends = {label: by_label[label].method.run for label in folders}
    started = next(own for label, own in folders.items() if ends[label] != BASELINE)  # their SFT is that of the start
    found = {label: seen(started, own, ends[label], columns) for label, own in folders.items()}
    if figures is not None:
        evaluated = {START: (BASELINE, started)} | {label: (ends[label], own) for label, own in folders.items()}
        study_figure.reliability(
            {label: [clone / f"results/evaluate_{run}" for clone in own] for label, (run, own) in evaluated.items()},
            figures / f"study_{group}.png",
        )
    measured_on = "the test sets" if main else "3dpw/train, bedlam/val, posescript/val"
    print(
        f"\n{group}\n\n{table(found, by_label, [*columns])}\n\n{ledger(group, timings, starts, measured_on)}\n",
        flush=True,
    )


def seen(
    started: Sequence[Path],
    clones: Sequence[Path],
    run: str,
    columns: Mapping[str, Callable[[Mapping[str, Any]], float]],
) -> list[dict[str, dict[str, float]]]:
    """The numbers of a method's runs and those of the SFT that each began with; started: clones that have them."""
    return [
        {"before": numbers(first, BASELINE, columns), "after": numbers(clone, run, columns)}
        for first, clone in zip(started, clones, strict=True)
    ]
