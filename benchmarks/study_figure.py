"""Held-out rewards during the study's RFT runs, as a picture: a line for each run, a band for several seeds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

PANELS = {
    "heldout/image_pose/bedlam/val/joint": "joint reward of the mean pose, 1/m",
    "heldout/text_pose/posescript/val/semantic": "semantic reward of the mean pose",
}


def heldout(results: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a held-out number of one training, the finished model's last."""
    rows = [json.loads(row) for row in (results / "log.jsonl").read_text().splitlines()]
    seen = [(row["step"], row[name]) for row in rows if name in row]
    last = json.loads((results / "metrics.json").read_text())[name]
    steps, values = zip(*seen, (rows[-1]["step"] + 1, last), strict=True)
    return list(steps), list(values)


def draw(runs: Mapping[str, Sequence[Path]], path: Path) -> None:
    """runs: label -> the results folders of its trainings, one for each seed; all with the same steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(10, 4.0), constrained_layout=True)
    for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
        for label, folders in runs.items():
            found = [heldout(folder, name) for folder in folders]
            steps, values = found[0][0], np.array([values for _, values in found])
            (line,) = axes.plot(steps, values.mean(0), label=label, linewidth=1.6)
            if len(found) > 1:
                axes.fill_between(steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_xlabel("step")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
