"""Turns per-run results into `metrics/summary.json` and the paper's three tables.

`summary` is the only place that compares runs: it reads what `stages.evaluate` wrote for each run, pairs the per-sample
rewards of the tuned runs with those of `sft_gaussian`, and selects the numbers that are committed to git. The table
builders turn a summary into rows of text next to the paper's rows; the terminal and the report print the same rows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from pose_rft.errors import PoseRftError
from pose_rft.evaluation import paper
from pose_rft.metrics.recall import TABLE_2_KS

RUNS = ("sft_point", "sft_gaussian", "rft_grpo", "rft_hygrpo")
REWARDED_RUNS = ("sft_gaussian", "rft_grpo", "rft_hygrpo")
BASELINE = "sft_gaussian"
BOUNDS = ("mean_pose", "encoder_lifter")  # what a policy has to beat, and what it starts from
PAPER_SETS = {"3dpw": "3DPW", "h36m_p2": "H36M"}  # of Table 1; tables show other sets by their labels
POOLS = ("full", "random_32", "random_200")
RETRIEVERS = ("reward", "judge")
DIRECTIONS = {"t2p": "T2P", "p2t": "P2T"}
DRAWS, DRAWS_AT_ONCE = 4000, 250  # of the bootstrap
ERRORS = ("mpjpe", "pa_mpjpe")
REWARDS = ("joint", "semantic", "format", "text")
GAINS = {"joint": ("image_pose", "joint_reward"), "semantic": ("text_pose", "semantic_reward")}
LABELS = {
    "mean_pose": "mean pose of the training set",
    "encoder_lifter": "encoder's lifter, no language model",
    "chance": "chance",
    "ground_truth": "ground-truth poses",
    "sft_point": "Baseline (SFT, point head)",
    "sft_gaussian": "+ Dist. (SFT, Gaussian head)",
    "rft_grpo": "+ Dist. + GRPO (text only)",
    "rft_hygrpo": "+ Dist. + HyGRPO",
}


def set_labels(content: Mapping[str, Any]) -> dict[str, str]:
    """{test set of a summary: its name in tables}; the paper's sets come first, whether or not the run has them."""
    return PAPER_SETS | {name: name for name in content["pose_error"] if name not in PAPER_SETS}


def paired_gain(values: pl.DataFrame, baseline: pl.DataFrame, column: str) -> dict[str, float]:
    """Mean paired difference over the samples that have a value in `column`, with its 95 % interval.

    The interval is a percentile bootstrap over units, not samples: errors within a video are correlated, and treating
    frames as independent would overstate the evidence. Units are resampled within each data set.

    Args:
        values, baseline: per-sample tables with `dataset`, `key`, `unit` and `column`.
    Raises:
        PoseRftError: the two tables have different samples, or fewer than two.
    """
    on = ["dataset", "key"]
    values, baseline = (table.filter(pl.col(column).is_not_null()) for table in (values, baseline))
    joined = values.select(*on, "unit", column).join(baseline.select(*on, pl.col(column).alias("baseline")), on=on)
    if not len(values) == len(baseline) == len(joined) or len(joined) < 2:
        raise PoseRftError(
            f"Runs of {len(values)} and {len(baseline)} samples share {len(joined)}; evaluate both on the same data."
        )
    difference = (pl.col(column) - pl.col("baseline")).cast(pl.Float64)
    by_unit = (
        joined.group_by("dataset", "unit")
        .agg(difference.sum().alias("sum"), pl.len().alias("count"))
        .sort("dataset", "unit")
    )
    low, high = _bootstrap([part.select("sum", "count").to_numpy() for part in by_unit.partition_by("dataset")])
    mean = float(by_unit["sum"].sum()) / len(joined)
    return {"mean": mean, "ci95_low": low, "ci95_high": high}


def _bootstrap(sets: Sequence[np.ndarray]) -> tuple[float, float]:
    """95 % interval of Σ sums / Σ counts, from one (units, 2) array of sums and counts per data set."""
    rng = np.random.default_rng(0)
    totals = np.zeros((DRAWS, 2))
    for units in sets:
        for first in range(0, DRAWS, DRAWS_AT_ONCE):
            times = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=DRAWS_AT_ONCE)
            totals[first : first + DRAWS_AT_ONCE] += times @ units
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (0.025, 0.975))
    return float(low), float(high)


def summary(results: Path) -> dict[str, Any]:
    """The content of metrics/summary.json, from the folder with `evaluate_RUN/` and `convert/`.

    Raises:
        PoseRftError: a run or a data set has no results, or runs were evaluated on different samples.
    """
    runs = {run: _read_json(results / f"evaluate_{run}" / "metrics.json") for run in RUNS}
    bounds = runs[BASELINE]
    pose_error: dict[str, Any] = {}
    for name in bounds["pose_error"]:  # only the test sets that the run has
        pose_error[name] = {b: bounds["pose_error"][name][b] for b in BOUNDS if b in bounds["pose_error"][name]}
        pose_error[name] |= {run: runs[run]["pose_error"][name]["policy"] for run in RUNS}
    recall: dict[str, Any] = {}
    for retriever in RETRIEVERS:
        recall[retriever] = {}
        for pool in POOLS:
            one = bounds["recall"][retriever][pool]
            recall[retriever][pool] = {"chance": one["chance"], "ground_truth": one["ground_truth"]}
            recall[retriever][pool] |= {run: runs[run]["recall"][retriever][pool]["policy"] for run in RUNS}
    gain: dict[str, Any] = {run: {} for run in REWARDED_RUNS if run != BASELINE}
    for reward, (table, column) in GAINS.items():
        if reward not in bounds["heldout_reward"]:
            continue
        baseline = _read_parquet(results / f"evaluate_{BASELINE}" / f"{table}.parquet")
        for run, content in gain.items():
            content[reward] = paired_gain(
                _read_parquet(results / f"evaluate_{run}" / f"{table}.parquet"), baseline, column
            )
    error_gain: dict[str, Any] = {name: {run: {} for run in gain} for name in pose_error}
    for name, by_run in error_gain.items():
        for run, content in by_run.items():
            ours, theirs = (
                _read_parquet(results / f"evaluate_{one}" / "image_pose.parquet").filter(pl.col("dataset") == name)
                for one in (run, BASELINE)
            )
            content |= {metric: paired_gain(ours, theirs, metric) for metric in ERRORS}
    data: dict[str, Any] = {}
    for path in sorted((results / "convert").glob("*.json")):
        data |= _read_json(path)["data"]
    if not data:
        raise PoseRftError(f"{results / 'convert'} holds no conversion metrics; run `dvc repro`.")
    return {
        "pose_error": pose_error,
        "recall": recall,
        "heldout_reward": {run: runs[run]["heldout_reward"] for run in REWARDED_RUNS},
        "heldout_gain": gain,
        "gain": error_gain,
        "data": {
            name: {key: content[key] for key in ("samples", "defects", "shards")} for name, content in data.items()
        },
    }


@dataclass(frozen=True)
class Row:
    """One row of a table. kind: `paper` as printed there, `bound` a baseline or upper bound, `ours` a run."""

    label: str
    cells: tuple[str, ...]
    kind: Literal["paper", "bound", "ours"]


@dataclass(frozen=True)
class Table:
    """A table as it is printed and shown in the report: title, columns, rows, note."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str


def table1(content: Mapping[str, Any]) -> Table:
    """Joint errors on the image test sets, the paper's rows first."""
    sets = set_labels(content)
    unprinted = (None,) * (len(sets) - len(PAPER_SETS)) * len(ERRORS)
    rows = [Row(name, _numbers([*values, *unprinted]), "paper") for name, values in paper.TABLE_1.items()]
    for run in (*BOUNDS, *RUNS):
        if run == "encoder_lifter" and not any(run in errors for errors in content["pose_error"].values()):
            continue  # this encoder predicts no pose
        values = [error for name in sets for error in _errors(content, name, run)]
        rows.append(Row(LABELS[run], _numbers(values), "bound" if run in BOUNDS else "ours"))
    columns = tuple(f"{label} {metric}" for label in sets.values() for metric in ("MPJPE", "PA-MPJPE"))
    return Table(
        "Table 1: pose from an image, mm",
        columns,
        tuple(rows),
        "14 joints, aligned at the pelvis, against the joints that Human3.6M measured and against 3DPW's SMPL bodies; "
        "mean pose of the Gaussian, greedy text. The paper's rows are of real photographs and models of billions of "
        "parameters: not comparable with a sample run.",
    )


def table2(content: Mapping[str, Any], retriever: str = "reward") -> Table:
    """Recall of generated poses at K = 5/10/20, by the reward model or by the independent judge."""
    rows = []
    for name, row in paper.TABLE_2.items() if retriever == "reward" else ():
        blank: dict[str, tuple[paper.Triple | None, paper.Triple | None]] = dict.fromkeys(POOLS, (None, None))
        blank |= {
            "full": (row.full_t2p, row.full_p2t),
            f"random_{paper.RANDOM_POOL_THAT_FITS}": (row.random_t2p, row.random_p2t),
        }
        rows.append(Row(name, tuple(_triple(cell) for pool in POOLS for cell in blank[pool]), "paper"))
    for run in ("chance", "ground_truth", *RUNS):
        cells = [
            _triple([content["recall"][retriever][pool][run][direction][str(k)] for k in TABLE_2_KS])
            for pool in POOLS
            for direction in DIRECTIONS
        ]
        rows.append(Row(LABELS[run], tuple(cells), "bound" if run in ("chance", "ground_truth") else "ours"))
    judge = "the model that also gives the reward" if retriever == "reward" else "an independent judge"
    return Table(
        f"Table 2: pose from text, recall in percent at K = 5/10/20, by {judge}",
        tuple(f"{pool.replace('_', ' ')} {label}" for pool in POOLS for label in DIRECTIONS.values()),
        tuple(rows),
        "Texts are the human captions of the test split, one per pose; the pool holds the generated poses (T2P) or the "
        "captions (P2T); random pools are averaged over hits of 10 draws. The paper's random columns, stated as "
        "N = 32, fit N = 200 and stand there.",
    )


def table3(content: Mapping[str, Any]) -> Table:
    """Ablation of the distribution and of reinforcement: our four runs, with the paper's three."""
    rows = [Row(f"{LABELS[run]}, paper", (*_numbers(values), "", ""), "paper") for run, values in paper.TABLE_3.items()]
    if lifted := content["pose_error"].get("3dpw", {}).get("encoder_lifter"):
        values = [lifted["mpjpe"], lifted["pa_mpjpe"], *[None] * (len(RETRIEVERS) * len(DIRECTIONS))]
        rows.append(Row(LABELS["encoder_lifter"], _numbers(values), "bound"))
    for run in RUNS:
        recall = [mean_recall(content, retriever, run, d) for retriever in RETRIEVERS for d in DIRECTIONS]
        rows.append(Row(LABELS[run], _numbers([*_errors(content, "3dpw", run), *recall]), "ours"))
    return Table(
        "Table 3: ablation",
        (
            "3DPW MPJPE",
            "3DPW PA-MPJPE",
            *(
                f"mRecall {label}{'' if r == 'reward' else ' (judge)'}"
                for r in RETRIEVERS
                for label in DIRECTIONS.values()
            ),
        ),
        tuple(rows),
        "mRecall: mean of K = 5, 10, 20 with the whole test set as the pool.",
    )


def mean_recall(content: Mapping[str, Any], retriever: str, run: str, direction: str) -> float:
    """mRecall of Table 3 from a summary, percent."""
    values = content["recall"][retriever]["full"][run][direction]
    return sum(values[str(k)] for k in TABLE_2_KS) / len(TABLE_2_KS)


def _errors(content: Mapping[str, Any], name: str, run: str) -> tuple[float | None, float | None]:
    """MPJPE and PA-MPJPE on a test set, None where the run does not have it."""
    errors = content["pose_error"].get(name, {}).get(run, {})
    return errors.get("mpjpe"), errors.get("pa_mpjpe")


def _numbers(values: Sequence[float | None]) -> tuple[str, ...]:
    return tuple("–" if value is None else f"{value:.1f}" for value in values)


def _triple(values: Sequence[float] | None) -> str:
    return "–" if values is None else "/".join(f"{value:.1f}" for value in values)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise PoseRftError(f"{path} does not exist; run `dvc repro`.") from None
    except json.JSONDecodeError as error:
        raise PoseRftError(f"{path} is not JSON ({error}); delete it and run `dvc repro`.") from None


def _read_parquet(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise PoseRftError(f"{path} does not exist; run `dvc repro`.")
    return pl.read_parquet(path)
