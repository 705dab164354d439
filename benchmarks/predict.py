"""Throughput of `predict` in persons per second, one by one and together, compared with MediaPipe's own solution.

    python -m benchmarks.predict PICTURES... [--persons 32] [--threads 2] [--cpu-time] [--json]

People are detected in the pictures once, and repeated until there are `--persons` of them. The same people, each in
their own box, are then predicted in three ways, each of them one by one and together:

- `command`: `pose-rft predict`, one process per person (`--processes` of them are run), and one for all people with
  `--boxes`. One by one is what a user gets without batches: each process loads the model.
- `boxes`: in one process with the model loaded, from pictures and boxes to placed bodies. The encoder first estimates
  the rotation of each square crop.
- `policy`: the same with the square crops known.

`detector` finds everyone in each picture. `mediapipe` is `mp.solutions.pose` (full variant, static images), which finds
one person per picture; `mediapipe, boxes` gives it each person's square crop as a picture. Both are skipped if the
package cannot be imported. Its newer PoseLandmarker runs the same two networks, from a bundle that the package does not
include.

The ways take turns, and the best of `--rounds` counts. `--cpu-time` counts the CPU seconds of all threads and child
processes instead of wall time, for a machine that also does other work.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import with_predictor
from benchmarks.timing import best
from pose_rft.cores import cores
from pose_rft.errors import PoseRftError
from pose_rft.predict.photographs import Photograph, read_photograph
from pose_rft.predict.prediction import Seen
from pose_rft.predict.predictor import Looked, Predictor
from pose_rft.record import Box

Ways = dict[str, tuple[Callable[[], object], int]]
"""{name: (work, number of persons or pictures it processes)}"""
PAIRS = ("command", "boxes", "policy")
SQUARE = 256  # px, of a person's crop as a picture


def boxed(predictor: Predictor, people: Sequence[tuple[Photograph, Seen]]) -> list[tuple[Photograph, Box]]:
    """Returns the people's own boxes, as a user would give them."""
    scale = predictor.processor.image.box_scale
    return [(photo, Box(seen.region.center, seen.region.side / scale, "given")) for photo, seen in people]


def in_one_process(predictor: Predictor, people: Sequence[tuple[Photograph, Seen]]) -> Ways:
    boxes = boxed(predictor, people)
    whole = {id(photograph): photograph for photograph, _ in people}.values()

    def together() -> None:
        looked = []
        for photograph in whole:
            own = [box for other, box in boxes if other is photograph]
            looked.append(Looked(photograph, predictor.see(photograph, own)))
        predictor.people(looked)

    count = len(people)
    return {
        "boxes, one by one": (lambda: [predictor.photograph(one, [box]) for one, box in boxes], count),
        "boxes, together": (together, count),
        "policy, one by one": (lambda: [predictor.people([Looked(one, [seen])]) for one, seen in people], count),
        "policy, together": (lambda: predictor.people([Looked(one, [seen]) for one, seen in people]), count),
    }


def processes(asked: argparse.Namespace, boxes: Sequence[tuple[Photograph, Box]], count: int, scratch: Path) -> Ways:
    """Returns runs of `pose-rft predict`: one per person for the first `count` people, and one for all of them."""
    paths = dict.fromkeys(photograph.path for photograph, _ in boxes)
    rows = [
        {"id": number, "image_id": list(paths).index(photograph.path), "bbox": corner_and_size(box)}
        for number, (photograph, box) in enumerate(boxes)
    ]
    images = [{"id": number, "file_name": path.name} for number, path in enumerate(paths)]
    (scratch / "boxes.json").write_text(json.dumps({"images": images, "annotations": rows}))

    def predict(*arguments: object) -> None:
        out = tempfile.mkdtemp(dir=scratch)
        command = [Path(sys.executable).with_name("pose-rft"), "predict", *arguments, "--out", out]
        command += ["--model", asked.model, "--body-model", asked.body_model]
        threads = {"OMP_NUM_THREADS": str(asked.threads)}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | threads)
        if done.returncode:
            raise PoseRftError(f"`pose-rft predict` ended with status {done.returncode}: {done.stderr[-500:].strip()}")

    def each() -> None:
        for photograph, box in boxes[:count]:
            predict(photograph.path, "--box", ",".join(map(str, corner_and_size(box))))

    return {
        "command, one by one": (each, min(count, len(boxes))),
        "command, together": (partial(predict, *paths, "--boxes", scratch / "boxes.json"), len(boxes)),
    }


def corner_and_size(box: Box) -> list[float]:
    """Returns X, Y, W, H in px."""
    return [round(middle - box.side / 2, 2) for middle in box.center] + [round(box.side, 2)] * 2


def mediapipe(people: Sequence[tuple[Photograph, Seen]]) -> Ways:
    """Returns MediaPipe's own solution over the pictures and over the people; empty if it is not installed."""
    try:
        import mediapipe as mp
    except ImportError:
        return {}
    pictures = list({id(photo): photo.pixels for photo, _ in people}.values())
    squares = [np.ascontiguousarray(seen.region.cut(photo.pixels, SQUARE)) for photo, seen in people]
    pose = mp.solutions.pose.Pose(static_image_mode=True, model_complexity=1)
    return {
        "mediapipe": (lambda: [pose.process(one) for one in pictures], len(pictures)),
        "mediapipe, boxes": (lambda: [pose.process(one) for one in squares], len(squares)),
    }


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process, its threads and its finished children."""
    return sum(os.times()[:4])


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """Measures persons per second (`detector` and `mediapipe`: pictures per second)."""
    torch.set_num_threads(asked.threads)
    photographs = [read_photograph(path) for path in asked.pictures]
    predictor = Predictor(asked.model, asked.body_model)
    people = [(one, seen) for one in photographs for seen in predictor.everyone(one)]
    people = (people * -(-asked.persons // len(people)))[: asked.persons]
    ways = in_one_process(predictor, people)
    ways["detector"] = (lambda: [predictor.everyone(one) for one in photographs], len(photographs))
    ways |= mediapipe(people)
    with tempfile.TemporaryDirectory(prefix="predict-") as scratch:
        if asked.processes:
            ways |= processes(asked, boxed(predictor, people), asked.processes, Path(scratch))
        clock = cpu_seconds if asked.cpu_time else time.perf_counter
        seconds = best({name: work for name, (work, _) in ways.items()}, asked.rounds, clock)
    return {name: ways[name][1] / spent for name, spent in seconds.items()}


def said(measured: Mapping[str, Any]) -> str:
    """Formats the rates and the speed-up from batching."""
    lines = [f"{name:<24}{rate:8.2f} a second" for name, rate in measured.items()]
    for pair in PAIRS:
        if f"{pair}, together" in measured:
            gain = measured[f"{pair}, together"] / measured[f"{pair}, one by one"]
            lines.append(f"{pair}: together {gain:.1f} times as fast")
    return "\n".join(lines)


def main() -> None:
    parser = with_predictor.parser("predict", __doc__)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--persons", type=int, default=32)
    parser.add_argument("--processes", type=int, default=2, help="of `command, one by one`; 0: no processes")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: other work runs beside this")
    with_predictor.show(parser.parse_args(), measure, said)


if __name__ == "__main__":
    main()
