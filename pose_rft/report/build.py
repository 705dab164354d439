"""The report: one offline HTML page from the results of every stage.

It shows tables next to the paper's, training curves, inputs with predicted and true bodies, fixed sentences at several
RFT steps (the paper's section 4.4), and data statistics. Everything is inline: no scripts, fonts or network requests.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import polars as pl
import torch
from torch import Tensor

from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.evaluation.distribution_tables import extra_tables
from pose_rft.evaluation.tables import LABELS, Row, Table, set_labels, table1, table2, table3
from pose_rft.policy.person_crops import Square, crop
from pose_rft.render.bodies import PREDICTED, TRUE, BodyPainter, data_uri, on_frame
from pose_rft.report.charts import line_chart, reliability_chart
from pose_rft.report.notice import ON_PHOTOGRAPHS
from pose_rft.shards.loader import ShardSet
from pose_rft.validation.checks import tables

BEFORE, AFTER = "sft_gaussian", "rft_hygrpo"
IMAGE_NAMES = ("input", "before HyGRPO", "after HyGRPO", "truth")
GROUPS = {"paper": "As printed in the paper", "bound": "Bounds of this run", "ours": "This run"}
SMOOTH = 15  # steps
CROP = 160  # px

RFT_RUNS = {"HyGRPO": "rft_hygrpo", "GRPO": "rft_grpo"}


def _of_both(column: str) -> dict[str, tuple[str, str]]:
    return {label: (run, column) for label, run in RFT_RUNS.items()}


# From the stages' logs: {title: {label: (stage, column)}}; columns that a run does not log are left out.
CURVES: dict[str, dict[str, tuple[str, str]]] = {
    "Pose encoder: loss": {"loss": ("pose_encoder", "loss")},
    "SFT: loss": {"point": ("sft_point", "loss"), "gaussian": ("sft_gaussian", "loss")},
    "Retrieval: loss": {"reward": ("retrieval_reward", "loss"), "judge": ("retrieval_judge", "loss")},
    "RFT: joint reward of drawn poses": _of_both("rewards/joint/mean"),
    "RFT: semantic reward of drawn poses": _of_both("rewards/semantic/mean"),
    "RFT: pose KL to the SFT policy, nats per number": _of_both("pose/kl"),
    "RFT: σ of the pose, mean": _of_both("pose/sigma_mean"),
}


def build(
    summary: Mapping[str, Any], results: Path, shards: Path, body: BodyModel, sample: bool, cases: int = 10
) -> str:
    """The HTML of the page.

    Args:
        summary: content of metrics/summary.json.
        results, shards: folders that the stages wrote. cases: number of images per test set, and of sentences, to show.
        sample: adds a notice at the top that the numbers come from the embedded sample.
    """
    painter = BodyPainter(body)
    numbers = [
        table1(summary),
        table2(summary),
        table2(summary, "judge"),
        table3(summary),
        *extra_tables(summary),
        errors_table(summary),
        rewards_table(summary),
    ]
    folders = json.loads((results / f"evaluate_{AFTER}" / "metrics.json").read_text())["image_sets"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        sample=sample,
        on_photographs=ON_PHOTOGRAPHS,
        tables=[_table(table) for table in numbers],
        reliability=reliability_charts(results),
        charts=charts(results),
        photographs={
            label: photographs(results, shards / folders[name], name, painter, cases)
            for name, label in set_labels(summary).items()
            if name in folders
        },
        sentences=sentences(results, painter, cases),
        fixed=fixed_sentences(results / f"{AFTER}/fixed_sentences.json", painter),
        image_names=IMAGE_NAMES,
        data=data_table(results),
        validation=tables(json.loads((results / "validate/checks.json").read_text())),
    )


def errors_table(summary: Mapping[str, Any]) -> Table:
    """The change in joint errors of each tuned run relative to its SFT run, with 95 % intervals."""
    labels = {name: label for name, label in set_labels(summary).items() if name in summary["gain"]}
    runs = sorted({run for gains in summary["gain"].values() for run in gains})
    metrics = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE"}
    rows = [
        Row(LABELS[run], tuple(_interval(summary["gain"][name][run][m], 1) for name in labels for m in metrics), "ours")
        for run in runs
    ]
    columns = tuple(f"{label} {metric}" for label in labels.values() for metric in metrics.values())
    note = (
        "Paired differences in mm, less is better; 95 % by a bootstrap over subjects (Human3.6M) or sequences (3DPW)."
    )
    return Table("Joint errors after SFT: change by reinforcement", columns, tuple(rows), note)


def _interval(gain: Mapping[str, float], digits: int) -> str:
    return "{mean:+.{d}f} [{ci95_low:+.{d}f}, {ci95_high:+.{d}f}]".format(**gain, d=digits)


def rewards_table(summary: Mapping[str, Any]) -> Table:
    """Held-out rewards of the mean pose, and the gain of each tuned run over SFT with its 95 % interval."""
    rows = []
    for run, rewards in summary["heldout_reward"].items():
        names = ("joint", "semantic", "format", "text")
        cells = [f"{rewards[name]['mean']:.3f}" if name in rewards else "–" for name in names]
        for name in ("joint", "semantic"):
            gain = summary["heldout_gain"].get(run, {}).get(name)
            cells.append("–" if gain is None else _interval(gain, 3))
        rows.append(Row(LABELS[run], tuple(cells), "ours"))
    columns = ("joint (1/m)", "semantic", "format", "text", "gain in joint", "gain in semantic")
    note = "Greedy text, mean pose; joint on the image test sets, semantic on PoseScript's test captions, text on VQA; "
    note += "intervals by a bootstrap over subjects and sequences."
    return Table("Held-out rewards", columns, tuple(rows), note)


def _table(table: Table) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    kind = None
    for row in table.rows:
        if row.kind != kind:
            kind = row.kind
            rows.append({"group": GROUPS[kind]})
        rows.append({"cells": (row.label, *row.cells), "ours": kind == "ours"})
    return {"title": table.title, "header": ("", *table.columns), "rows": rows, "note": table.note}


def charts(results: Path) -> list[str]:
    """SVGs of all curves whose logs exist."""
    drawn = []
    for title, lines in CURVES.items():
        series = {}
        for label, (stage, column) in lines.items():
            points = read_curve(results / stage / "log.jsonl", column)
            if points[0]:
                series[label] = points
        if series:
            drawn.append(line_chart(title, series, smooth=SMOOTH))
    drawn += heldout_charts(results)
    return drawn


def reliability_charts(results: Path) -> list[str]:
    """One diagram per test set: how often an interval of each level contains the truth, before and after calibration.

    Shows the two runs that differ most, SFT and HyGRPO; the point head has no intervals.
    """
    runs = {"SFT": BEFORE, "HyGRPO": AFTER}
    found = {
        label: json.loads((results / f"evaluate_{run}" / "metrics.json").read_text())["distribution"]
        for label, run in runs.items()
    }
    drawn = []
    for name in found["SFT"]:
        series = {}
        for label, sets in found.items():
            one = sets.get(name, {})
            for form, content in ((label, one), (f"{label}, calibrated", one.get("calibrated", {}))):
                if points := content.get("reliability"):
                    line = sorted((float(level), 100 * share) for level, share in points.items())  # JSON sorts as text
                    series[form] = ([level for level, _ in line], [share for _, share in line])
        if series:
            drawn.append(reliability_chart(f"Reliability, {name}", series))
    return drawn


def heldout_charts(results: Path) -> list[str]:
    """SVGs of the held-out rewards during the two RFT runs."""
    logs = {label: _rows(results / run / "log.jsonl") for label, run in RFT_RUNS.items()}
    names = sorted({key for rows in logs.values() for row in rows for key in row if key.startswith("heldout/")})
    drawn = []
    for name in names:
        _, _, data, split, reward = name.split("/")
        if reward in ("joint", "semantic"):
            series = {label: _points(rows, name) for label, rows in logs.items()}
            drawn.append(line_chart(f"RFT: held-out {reward} reward, {data} {split}", series, smooth=1))
    return drawn


def read_curve(log: Path, column: str) -> tuple[list[float], list[float]]:
    """(steps, values) of one column of a training log; empty if the log or column is missing."""
    return _points(_rows(log), column)


def _rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def _points(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[list[float], list[float]]:
    rows = [row for row in rows if row.get(column) is not None]
    return [row["step"] for row in rows], [row[column] for row in rows]


def photographs(results: Path, folder: Path, name: str, painter: BodyPainter, cases: int) -> list[dict[str, Any]]:
    """Inputs with the poses before and after HyGRPO and the truth, evenly spaced over the test set."""
    shard_set = ShardSet(folder)
    shown = []
    for row in _paired(results, "image_pose", name, cases):
        record = shard_set.record(shard_set.row(row["key"]))
        assert record.image is not None
        square = Square.around(record.box, (record.image.width, record.image.height), 1.0)
        images = [crop(record.image.data, square, CROP)]
        images += [painter.portrait(_pose(row[column]), size=CROP) for column in ("before", "pose")]
        if row["true_pose"] is not None:  # null where the joints were measured but have no SMPL fit
            images.append(painter.portrait(_pose(row["true_pose"]), TRUE, CROP))
        caption = f"MPJPE {row['mpjpe_before']:.0f} → {row['mpjpe']:.0f} mm"
        shown.append({"images": [data_uri(image) for image in images], "caption": caption})
    return shown


def sentences(results: Path, painter: BodyPainter, cases: int) -> list[dict[str, Any]]:
    """Captions with the poses before and after HyGRPO and the truth."""
    shown = []
    for row in _paired(results, "text_pose", "posescript", cases):
        poses = [(row["before"], PREDICTED), (row["pose"], PREDICTED), (row["true_pose"], TRUE)]
        images = [painter.portrait(on_frame(_pose(pose)), colour, CROP) for pose, colour in poses]
        shown.append({"images": [data_uri(image) for image in images], "caption": row["caption"]})
    return shown


def _paired(results: Path, table: str, name: str, cases: int) -> list[dict[str, Any]]:
    before = pl.read_parquet(results / f"evaluate_{BEFORE}" / f"{table}.parquet")
    columns = {"pose": "before"} | ({"mpjpe": "mpjpe_before"} if table == "image_pose" else {})
    after = pl.read_parquet(results / f"evaluate_{AFTER}" / f"{table}.parquet").filter(pl.col("dataset") == name)
    both = after.join(before.select("dataset", "key", *columns).rename(columns), on=["dataset", "key"]).sort("key")
    rows = np.unique(np.linspace(0, len(both) - 1, min(cases, len(both))).astype(int))
    return both[rows.tolist()].to_dicts()


def fixed_sentences(path: Path, painter: BodyPainter) -> list[dict[str, Any]]:
    """One row per sentence: its mean pose at every stored step, then the truth."""
    content = json.loads(path.read_text())
    lines = []
    for i, sentence in enumerate(content["sentences"]):
        images = [
            {"uri": _labelled(painter, moment["poses"][i], f"step {moment['step']}"), "step": moment["step"]}
            for moment in content["moments"]
        ]
        images.append({"uri": _labelled(painter, sentence["true_pose"], "truth", TRUE), "step": "truth"})
        steps = ", ".join(str(moment["step"]) for moment in content["moments"])
        lines.append({"text": sentence["caption"], "images": images, "steps": steps})
    return lines


def _labelled(painter: BodyPainter, pose: Any, text: str, colour: tuple[float, float, float] = PREDICTED) -> str:
    image = painter.portrait(on_frame(_pose(pose)), colour, CROP)
    cv2.putText(image, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (90, 90, 90), 1, cv2.LINE_AA)
    return data_uri(image)


def _pose(axis_angle: Any) -> Tensor:
    """72 axis-angle numbers in any shape -> (24, 3, 3)."""
    return axis_angle_to_matrix(torch.tensor(axis_angle, dtype=torch.float32).view(24, 3))


def data_table(results: Path) -> dict[str, Any]:
    """Sample counts of every data set and split."""
    rows = []
    for path in sorted((results / "convert").glob("*.json")):
        for name, content in json.loads(path.read_text())["data"].items():
            for split, numbers in content["splits"].items():
                captions = numbers.get("captions", {})
                cells = [numbers.get(key, 0) for key in ("samples", "images", "with_smpl", "subjects")]
                cells += [captions.get("human", 0), captions.get("automatic", 0), numbers.get("dialogues", 0)]
                rows.append([name, split, *cells, numbers["defects"], numbers["shards"]])
    header = ["data set", "split", "samples", "images", "with SMPL", "subjects", "human captions"]
    return {"header": [*header, "automatic captions", "dialogues", "defects", "shards"], "rows": rows}
