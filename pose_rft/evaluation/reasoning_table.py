"""ChatPose's reasoning benchmarks in metrics/summary.json and as Table 6, if a run has any of them."""

from collections.abc import Mapping
from typing import Any

from pose_rft.evaluation.tables import BASELINE, DIRECTIONS, LABELS, RUNS, Row, Table
from pose_rft.metrics.recall import TABLE_2_KS

ERRORS = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "mpjre": "MPJRE"}


def reasonings(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{benchmark (its split): {run: numbers}}; recall is over the whole set as the pool, by both retrievers."""
    names = runs[BASELINE].get("reasoning", {})
    return {
        name.partition("/")[2]: {run: _kept(content["reasoning"][name]) for run, content in runs.items()}
        for name in names
    }


def _kept(numbers: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(numbers)
    if "recall" in kept:
        kept["recall"] = {retriever: pools["full"]["policy"] for retriever, pools in kept["recall"].items()}
    return kept


def table6(content: Mapping[str, Any]) -> Table:
    """One row per run: errors for benchmarks about a person in an image, recall for those that infer a pose."""
    columns: list[str] = []
    cells: dict[str, list[str]] = {run: [] for run in RUNS}
    for name, by_run in content["reasoning"].items():
        recalled = "recall" in by_run[BASELINE]
        columns += [f"{name} {label}" for label in (DIRECTIONS if recalled else ERRORS).values()]
        for run, numbers in by_run.items():
            if recalled:
                reward = numbers["recall"]["reward"]
                cells[run] += ["/".join(f"{reward[d][str(k)]:.1f}" for k in TABLE_2_KS) for d in DIRECTIONS]
            else:
                cells[run] += [f"{numbers[metric]:.1f}" for metric in ERRORS]
    return Table(
        "Table 6: ChatPose's reasoning benchmarks",
        tuple(columns),
        tuple(Row(LABELS[run], tuple(row), "ours") for run, row in cells.items()),
        "RPE: the person whom the question means, in the whole picture; mm over 22 joints from the pelvis, and degrees "
        "of the body's local rotations. SPG: recall in percent at K = 5/10/20 by the reward model, against the "
        "captions of the poses that the questions are about.",
    )
