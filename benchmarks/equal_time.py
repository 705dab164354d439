"""`python -m benchmarks.study opponents distribution main`: methods at equal wall time, over several seeds.

The time budget is that of the preset's HyGRPO for `--steps` steps. A probe of a few steps measures the step time of
each method, under the same parallel load as in the runs themselves, and every method gets as many steps as fit into the
budget (its cosine learning-rate schedule ends there). Each probe has its own clone, so a study that is started again
finds the same timings.

`opponents` and `distribution` are for selection: one start, three seeds of RFT, evaluated on validation sets only.
`main` uses the test sets, with seeds not used for any selection: five of training on each of two rendered worlds.
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
CHOSEN_WITH = {"seed.train": 21}  # the start of the groups for selection
RFT_SEEDS = (1, 2, 3)
# Labels stay those of the preset, so that the same columns read both: `3dpw` is the `train` split of a 3DPW-like set,
# which nothing is trained on, `h36m_p2` is BEDLAM's validation split.
VALIDATION = {
    "evaluate.image_sets.3dpw": "3dpw/train",
    "evaluate.image_sets.h36m_p2": "bedlam/val",
    "evaluate.text_set": "posescript/val",
}
FRESH = [{"seed.train": train, "seed.data": data} for train in (31, 32, 33, 34, 35) for data in (5, 6)]


def of_distribution(dataset: str, name: str) -> Callable[[Mapping[str, Any]], float]:
    """Returns a reader of one metric, which is NaN if the evaluation lacks it because its set is left out."""
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
    """preset: base of all runs; values: dotted params of all; steps: the budget's; starts: how many (None: all)."""

    preset: Path = PRESET
    values: Mapping[str, Any] = MappingProxyType({})
    steps: int = 400
    starts: int | None = None


FULL = Size()


class Timed(NamedTuple):
    """A method with the steps that fit into the time budget, and the seconds per step."""

    method: Method
    steps: int
    seconds: float


def steps_for(budget: float, seconds: float) -> int:
    """Returns how many steps fit into a budget, to two digits: timing is no more precise."""
    steps = max(1.0, budget / seconds)
    unit = 10 ** max(0, math.floor(math.log10(steps)) - 1)
    return max(1, round(steps / unit) * unit)


def timed(methods: Sequence[Method], size: Size, root: Path, pool: ThreadPoolExecutor) -> list[Timed]:
    """Returns each method's steps in the time that HyGRPO takes for `size.steps`; the same for all seeds.

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
    start = override(read_yaml(root / size.preset), dict(size.values))["sft"]["steps"]  # SFT alone continues from there
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
    """Returns one column per method: mean ± std over runs, in brackets that of each run's change from its SFT in %.

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
    """Returns lines for docs/results.md: what was run with which seeds and values, on which sets it was measured."""
    seeds = "; ".join(", ".join(f"{key} {value}" for key, value in start.items() if "seed" in key) for start in starts)
    lines = [f"{group}, measured on {measured_on}; {seeds}"]
    for entry in timings:
        values = ", ".join(f"{key} = {value}" for key, value in entry.method.overrides.items()) or "the preset"
        lines.append(f"- {entry.method.label} ({entry.method.run}, {entry.steps} steps): {values}")
    return "\n".join(lines)


def shared(starts: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], list[Mapping[str, Any]]]]:
    """Returns what to compute first, as parallel runs would all compute it: targets, and the starts that need them."""
    worlds = {start.get("seed.data"): start for start in reversed(starts)}
    trained = {(start.get("seed.data"), start.get("seed.train")): start for start in reversed(starts)}
    models = ["sft@gaussian", "retrieval@reward", "retrieval@judge"]
    return [(["validate"], list(worlds.values())[::-1]), (models, list(trained.values())[::-1])]


def study(group: str, root: Path, size: Size = FULL, figures: Path | None = None) -> None:
    """Runs a group and prints its table and its ledger; `figures`: a folder for its reliability diagram.

    Raises:
        PoseRftError: a run failed; what is done is kept, and the same command resumes.
    """
    main = group == "main"
    starts = FRESH if main else [{**CHOSEN_WITH, **VALIDATION, "rft.seed": seed} for seed in RFT_SEEDS]
    starts = [{**size.values, **start} for start in starts[: size.starts]]
    columns = ON_TEST if main else ON_VALIDATION

    def made(run: Run, targets: Sequence[str] = ()) -> Path:
        return reproduce(run, root, targets, size.preset)

    def measured(entry: Timed, start: Mapping[str, Any]) -> Path:
        """Runs an entry and prints its metrics at once, so that the log keeps them if the machine is lost later."""
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
        for start in starts:  # outer loop: what a method trains besides RFT is then cached for its next start
            for entry in timings:
                clones[entry.method.label].append(pool.submit(measured, entry, start))
        folders = {label: [future.result() for future in futures] for label, futures in clones.items()}
    by_label = {entry.method.label: entry for entry in timings}
    ends = {label: by_label[label].method.run for label in folders}
    started = next(own for label, own in folders.items() if ends[label] != BASELINE)  # their SFT is the start's
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
    """Returns metrics of a method's runs and of the SFT that each started with; started: the clones with that SFT."""
    return [
        {"before": numbers(first, BASELINE, columns), "after": numbers(clone, run, columns)}
        for first, clone in zip(started, clones, strict=True)
    ]
