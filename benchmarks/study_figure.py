"""The study's figures: one line per run or method, with a band if it has several seeds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

PANELS = {
    "heldout/image_pose/bedlam/val/joint": "joint reward of the mean pose, 1/m",
    "heldout/text_pose/posescript/val/semantic": "semantic reward of the mean pose",
}


def heldout(results: Path, name: str) -> tuple[list[int], list[float]]:
    """Returns steps and values of a held-out metric of one training; the finished model's value is last."""
    rows = [json.loads(row) for row in (results / "log.jsonl").read_text().splitlines()]
    seen = [(row["step"], row[name]) for row in rows if name in row]
    last = json.loads((results / "metrics.json").read_text())[name]
    steps, values = zip(*seen, (rows[-1]["step"] + 1, last), strict=True)
    return list(steps), list(values)


def coverage(evaluations: Sequence[Path], dataset: str) -> tuple[list[float], np.ndarray]:
    """Returns L ascending levels, and (runs, L) shares of 6D numbers in their central interval of that level."""
    read = [json.loads((folder / "metrics.json").read_text())["distribution"][dataset] for folder in evaluations]
    percents = sorted(read[0]["reliability"], key=int)  # a JSON file has them in alphabetical order
    shares = np.array([[one["reliability"][percent] for percent in percents] for one in read])
    return [int(percent) / 100 for percent in percents], shares


def reliability(evaluations: Mapping[str, Sequence[Path]], path: Path, dataset: str = "3dpw") -> None:
    """Draws a reliability diagram: the share of 6D numbers in their central interval against the interval's level.

    Args:
        evaluations: label -> the results folders of its evaluations, one per run.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import cycler, pyplot

    figure, axes = pyplot.subplots(figsize=(5.6, 4.6), constrained_layout=True)
    # A group has more methods than the cycle has colours.
    axes.set_prop_cycle(cycler(linestyle=["-", "--"]) * matplotlib.rcParams["axes.prop_cycle"])
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", linewidth=1.2, label="calibrated")
    for label, folders in evaluations.items():
        levels, covered = coverage(folders, dataset)
        (line,) = axes.plot(levels, covered.mean(0), label=label, linewidth=1.6)
        axes.fill_between(levels, covered.min(0), covered.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="the interval's level", ylabel="share of numbers in it", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def draw(runs: Mapping[str, Sequence[Path]], path: Path) -> None:
    """Draws held-out rewards; runs: label -> results folders of its trainings, one per seed, all of equal steps."""
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
