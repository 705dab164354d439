"""How many persons a second `predict` manages, one by one and in batches, and MediaPipe's own solution beside it.

    python -m benchmarks.predict PICTURES... [--persons 32] [--threads 2] [--json]

The pictures' people are found once, and repeated until there are `--persons` of them. Then the same people are
predicted one by one and together, turn about, and the best of `--rounds` counts: `policy` with their squares known
(encoder, language model, body, placing), `boxes` with a box given for each (the encoder looks for the turn of each
square first, and what it observed there is kept). `mediapipe` is `mp.solutions.pose` (variant full, static pictures),
which finds one person a picture, and is left out where the package cannot be imported; `detector` finds everyone.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pose_rft.errors import PoseRftError
from pose_rft.predict.photographs import Photograph, read_photograph
from pose_rft.predict.prediction import Seen
from pose_rft.predict.predictor import Looked, Predictor
from pose_rft.record import Box


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def turn_about(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best time of each, measured in turns, so that what else the machine does meets all alike."""
    measured = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds + 1)][1:]
    return {name: min(one[name] for one in measured) for name in works}


def works(predictor: Predictor, people: Sequence[tuple[Photograph, Seen]]) -> dict[str, Callable[[], object]]:
    scale = predictor.processor.image.box_scale
    boxed = [(photograph, Box(seen.region.center, seen.region.side / scale, "given")) for photograph, seen in people]
    whole = {id(photograph): photograph for photograph, _ in people}.values()

    def together() -> None:
        looked = []
        for photograph in whole:
            boxes = [box for other, box in boxed if other is photograph]
            looked.append(Looked(photograph, predictor.see(photograph, boxes)))
        predictor.people(looked)

    return {
        "policy, one by one": lambda: [predictor.people([Looked(one, [seen])]) for one, seen in people],
        "policy, batched": lambda: predictor.people([Looked(one, [seen]) for one, seen in people]),
        "boxes, one by one": lambda: [predictor.photograph(one, [box]) for one, box in boxed],
        "boxes, batched": together,
    }


def mediapipe(photographs: Sequence[Photograph]) -> Callable[[], object] | None:
    """MediaPipe's own solution over the pictures; None where it is not installed."""
    try:
        import mediapipe as mp
    except ImportError:
        return None
    pose = mp.solutions.pose.Pose(static_image_mode=True, model_complexity=1)
    return lambda: [pose.process(one.pixels) for one in photographs]


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """Persons a second (`detector` and `mediapipe`: pictures a second)."""
    torch.set_num_threads(asked.threads)
    photographs = [read_photograph(path) for path in asked.pictures]
    predictor = Predictor(asked.model, asked.body_model)
    people = [(one, seen) for one in photographs for seen in predictor.everyone(one)]
    people = (people * -(-asked.persons // len(people)))[: asked.persons]
    todo = works(predictor, people)
    count = dict.fromkeys(todo, len(people))
    others = {"detector": lambda: [predictor.everyone(one) for one in photographs], "mediapipe": mediapipe(photographs)}
    for name, work in others.items():
        if work is not None:
            todo[name], count[name] = work, len(photographs)
    return {name: count[name] / best for name, best in turn_about(todo, asked.rounds).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--persons", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=Path("models/rft_hygrpo"))
    parser.add_argument("--body-model", type=Path, default=Path("data/sample/body_models"))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    try:
        measured = measure(asked)
    except PoseRftError as error:
        raise SystemExit(f"error: {error}") from None
    if asked.json:
        print(json.dumps(measured))
        return
    for name, rate in measured.items():
        print(f"{name:<24}{rate:8.1f} a second")
    for name in ("policy", "boxes"):
        print(f"{name}: batched is {measured[f'{name}, batched'] / measured[f'{name}, one by one']:.1f} times as fast")


if __name__ == "__main__":
    main()
