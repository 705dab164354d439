"""Our tables besides the paper's: distribution (Table 4), meaning (Table 5) and validation sets, from runs' results.

`distributions`, `meanings` and `validations` make the parts of metrics/summary.json that the tables are built from. An
older summary lacks these parts and gets no such tables.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pose_rft.evaluation.reasoning_table import reasonings, table6
from pose_rft.evaluation.tables import (
    BASELINE,
    BOUNDS,
    DIRECTIONS,
    ERRORS,
    LABELS,
    RETRIEVERS,
    RUNS,
    Row,
    Table,
    mean_recall,
    set_labels,
    summary,
)
from pose_rft.io.json_files import read_json
from pose_rft.metrics.posecodes import KINDS

Content = Mapping[str, Any]
CAPTIONS = "posescript"
LEFT_TO_RESULTS = "reliability"  # stays in the results: the diagram's points are not compared between runs
GRAMMARS = {"unheard": "unheard grammar", "human": "human captions"}


def whole_summary(results: Path) -> dict[str, Any]:
    """The content of metrics/summary.json: `tables.summary` plus distribution, posecodes, validation, roles of
    sets, and reasoning where a run has it.

    Raises:
        PoseRftError: see `tables.summary`.
    """
    content = summary(results)
    runs = {run: read_json(results / f"evaluate_{run}" / "metrics.json", dict) for run in RUNS}
    reasoning = reasonings(runs)
    return (
        content
        | ({"reasoning": reasoning} if reasoning else {})
        | {
            "distribution": distributions({run: found["distribution"] for run, found in runs.items()}),
            "posecodes": meanings(runs),
            "validation": validations(runs),
            "sets": runs[BASELINE]["sets"],
        }
    )


def distributions(by_run: Mapping[str, Content]) -> dict[str, Any]:
    """Turns {run: {set: numbers}} into {set: {run: numbers}}; `calibrated` holds those of the calibrated distribution.

    The encoder's lifter gives one pose and no distribution, so it has no row.
    """
    names = dict.fromkeys(name for content in by_run.values() for name in content)
    return {
        name: {run: _without_diagram(content[name]) for run, content in by_run.items() if content.get(name)}
        for name in names
    }


def _without_diagram(numbers: Content) -> dict[str, Any]:
    kept = {key: value for key, value in numbers.items() if key != LEFT_TO_RESULTS}
    return kept | ({"calibrated": _without_diagram(kept["calibrated"])} if "calibrated" in kept else {})


def meanings(runs: Mapping[str, Content]) -> dict[str, Any]:
    """{mean_pose | run: agreement with posecodes}."""
    return {"mean_pose": runs[BASELINE]["posecodes"]["mean_pose"]} | {
        run: content["posecodes"]["policy"] for run, content in runs.items()
    }


def validations(runs: Mapping[str, Content]) -> dict[str, Any]:
    """`pose_error`, `recall`, `distribution` and `heldout_reward` of validation sets, structured as in the summary."""
    parts = {run: content["validation"] for run, content in runs.items()}
    bounds = parts[BASELINE]
    pose_error = {
        name: {bound: errors[bound] for bound in BOUNDS if bound in errors}
        | {run: part["pose_error"][name]["policy"] for run, part in parts.items()}
        for name, errors in bounds["pose_error"].items()
    }
    recall = {
        retriever: {"full": {run: part["recall"][retriever]["full"]["policy"] for run, part in parts.items()}}
        for retriever in RETRIEVERS
        if "recall" in bounds
    }
    return {
        "pose_error": pose_error,
        "recall": recall,
        "distribution": distributions({run: part["distribution"] for run, part in parts.items()}),
        "heldout_reward": {run: part["heldout_reward"] for run, part in parts.items() if "heldout_reward" in part},
    }


def extra_tables(content: Content) -> list[Table]:
    """The extra tables for which the summary has data."""
    makers = {"distribution": table4, "posecodes": table5, "reasoning": table6, "validation": validation_table}
    return [make(content) for name, make in makers.items() if content.get(name)]


def table4(content: Content) -> Table:
    """The distribution on each test set, as predicted by the policy and (after the slash) calibrated."""
    labels = set_labels(content) | {CAPTIONS: "PoseScript"}
    rows = []
    for name, of_runs in content["distribution"].items():
        for run, found in of_runs.items():
            both = (found, found.get("calibrated", {}))
            bests = [f"best_of_{n}_mpjpe" for n in (1, 5, 25, 100)]
            cells = [
                *(_cell([found.get(key)], 1) for key in (*bests, "best_of_25_pa_mpjpe")),
                "/".join(_cell([found.get(f"coverage_{level}")], 0, 100) for level in (50, 68, 90)),
                *(_cell([one.get(key) for one in both], 0, 100) for key in ("coverage_90", "joint_coverage_90")),
                *(_cell([one.get(key) for one in both], 2) for key in ("rms_z", "nll_per_number")),
                *(_cell([one.get(key) for one in both], 1) for key in ("spread", "energy_score")),
                *(_cell([found.get(key)], 2) for key in ("fid", "diversity")),
            ]
            rows.append(Row(f"{labels.get(name, name)}: {LABELS[run]}", tuple(cells), "ours"))
    columns: tuple[str, ...] = (
        "best of 1, mm",
        "5",
        "25",
        "100",
        "PA, 25",
        "coverage 50/68/90 %",
        "90 %, calibrated",
        "90 % of joints",
    )
    columns += ("rms z", "NLL per number", "spread, mm", "energy score, mm", "FID", "diversity")
    return Table(
        "Table 4: distribution",
        columns,
        tuple(rows),
        "100 draws a sample: expected MPJPE of the best of n; share of 6D numbers inside their central interval, "
        "and of joints inside their ellipsoid; standardised deviation; density at the truth; mean distance between two "
        "draws. After the slash σ is calibrated on validation data, as in `predict`. FID and diversity: in the "
        "judge's feature space. A point has no density; the encoder's lifter has no distribution and no row.",
    )


def table5(content: Content) -> Table:
    """Agreement of the mean pose with the facts that captions state: precision / recall, percent."""
    rows = []
    for run, found in content["posecodes"].items():
        parts = [found, *(found["by_kind"][kind] for kind in KINDS), *(found[name] for name in GRAMMARS)]
        cells = tuple(_cell([part["precision"], part["recall"]], 1, 100) for part in parts)
        label = "one pose for every caption" if run == "mean_pose" else LABELS[run]
        rows.append(Row(label, cells, "bound" if run == "mean_pose" else "ours"))
    return Table(
        "Table 5: meaning, agreement with the captions' posecodes, precision / recall in percent",
        ("all facts", *KINDS, *GRAMMARS.values()),
        tuple(rows),
        "A judge without training: the predicted pose's own posecodes against those that the caption states, precision "
        "only where the caption speaks. Captions are written from the test poses, in the grammar of the automatic "
        "captions and in one that is never trained on; human captions: compared with all facts of the true pose.",
    )


def validation_table(content: Content) -> Table:
    """Errors, recall and energy scores on the validation sets, which settings may be chosen by."""
    found = content["validation"]
    names = list(found["pose_error"])
    rows = []
    for run in (*BOUNDS, *RUNS):
        errors = [found["pose_error"][name].get(run, {}).get(metric) for name in names for metric in ERRORS]
        recall = [mean_recall(found, "judge", run, d) if found["recall"] and run in RUNS else None for d in DIRECTIONS]
        scores = [found["distribution"].get(name, {}).get(run, {}).get("energy_score") for name in names]
        if any(value is not None for value in errors):
            cells = tuple(_cell([value], 1) for value in (*errors, *recall, *scores))
            rows.append(Row(LABELS[run], cells, "bound" if run in BOUNDS else "ours"))
    columns = [f"{name} {metric}" for name in names for metric in ("MPJPE", "PA-MPJPE")]
    columns += [f"mRecall {label} (judge)" for label in DIRECTIONS.values()]
    columns += [f"{name} energy score" for name in names]
    note = "Apart from the test sets above, which are read for the final table only; `evaluate.validation_sets`."
    return Table("Validation sets: what settings are chosen by", tuple(columns), tuple(rows), note)


def _cell(values: list[float | None], digits: int, factor: float = 1.0) -> str:
    """Joins numbers with slashes and leaves out missing ones; a dash if all are missing."""
    return " / ".join(f"{factor * value:.{digits}f}" for value in values if value is not None) or "–"
