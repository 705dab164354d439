"""Line charts as inline SVG: no scripts, no network requests, the same bytes for the same numbers."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568")
STYLE: Any = {
    "svg.hashsalt": "pose-rft",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#a0aec0",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def line_chart(
    title: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str = "step", smooth: int = 1
) -> str:
    """An SVG element with one line per series: {label: (x, y)}; `smooth` > 1 draws a running mean over the raw line."""
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.4, 2.5), layout="constrained")
        for colour, (label, (x, y)) in zip(COLOURS, series.items(), strict=False):
            if smooth > 1 and len(y) > 2 * smooth:
                axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.7)
                axes.plot(x, running_mean(y, smooth), color=colour, label=label, linewidth=1.6)
            else:
                axes.plot(
                    x, y, color=colour, label=label, linewidth=1.6, marker="o" if len(y) < 12 else None, markersize=3
                )
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.grid(color="#edf2f7")
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
        return _inline(figure)


def reliability_chart(title: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """An SVG reliability diagram: interval level against the share of truths inside, both in percent, with the diagonal
    of perfect calibration. A line below it means overconfidence; pairs of lines share a colour, the second is dashed.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
        axes.plot([0, 100], [0, 100], color="#a0aec0", linewidth=0.8)
        for place, (label, (levels, shares)) in enumerate(series.items()):
            style = "--" if place % 2 else "-"
            axes.plot(levels, shares, style, color=COLOURS[place // 2], label=label, linewidth=1.6)
        axes.set(title=title, xlabel="interval, %", ylabel="holds the truth, %", xlim=(0, 100), ylim=(0, 100))
        axes.set_aspect("equal")
        axes.grid(color="#edf2f7")
        axes.legend(frameon=False, fontsize=7, loc="upper left")
        return _inline(figure)


def _inline(figure: Any) -> str:
    """Closes the figure and returns it as an SVG element without metadata."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean over up to `width` neighbours around each value; shorter windows at both ends."""
    half = width // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
