"""Evaluates a policy on labelled photographs: people found, and distance of projected limb joints from the annotation.

    python -m benchmarks.photographs ROOT [--annotations FILE] [--pictures FOLDER] [--model models/rft_hygrpo] [--json]

ROOT is a COCO-style folder: `annotations/person_keypoints_*.json` and pictures below it, or a converted split with 3D
ground truth (`data/shards/3dpw/test`), whose people are predicted in their own boxes and evaluated on Table 1's joints.

A person counts as found if the IoU of a prediction's extent and the annotated box is 0.5 or more. A prediction that
matches nobody is a false positive, unless it lies on a crowd or on someone without keypoints, which COCO ignores.
Errors are those of the 12 limb joints of the people found, divided by the longer side of the annotated box.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import with_predictor
from pose_rft.batches.samples import load_samples
from pose_rft.body.joints import COCO17, SMPL24
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.evaluation.protocols import eval_joints, is_measured, joint_errors, true_joints
from pose_rft.io.json_files import read_json
from pose_rft.io.pictures import decode
from pose_rft.predict.people import extent
from pose_rft.predict.person_detector import overlap
from pose_rft.predict.photographs import Photograph, focal_length, read_photograph
from pose_rft.predict.prediction import Prediction
from pose_rft.predict.predictor import Predictor
from pose_rft.record import Box
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.manifest import MANIFEST

LIMBS = tuple(
    f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
FOUND = 0.5  # IoU
IGNORED = 0.5  # share of an unmatched prediction that lies on a person whom COCO ignores
NEAR = 0.1  # of the box side


@dataclass(frozen=True, eq=False)
class Annotation:
    """box: x0, y0, x1, y1 px; keypoints: {name: (x, y)}, labelled ones only; counts: not a crowd, has keypoints."""

    box: NDArray[np.float64]
    keypoints: dict[str, NDArray[np.float64]]
    counts: bool

    @property
    def side(self) -> float:
        return float((self.box[2:] - self.box[:2]).max())


@dataclass(frozen=True, eq=False)
class Outcome:
    """One picture's results. projected, seen: errors over the box side, of the body and of the encoder's 2D points."""

    people: int
    found: int
    false: int
    projected: list[float]
    seen: list[float]


def annotations(path: Path) -> dict[str, list[Annotation]]:
    """Reads {file name: its people} from a COCO keypoint file.

    Raises:
        PoseRftError: the file does not exist, or has another format.
    """
    content = read_json(path, dict)
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        found: dict[str, list[Annotation]] = {name: [] for name in names.values()}
        for row in content["annotations"]:
            x, y, width, height = map(float, row["bbox"])
            points = np.array(row.get("keypoints") or np.zeros(51), np.float64).reshape(len(COCO17), 3)
            labelled = {name: point[:2] for name, point in zip(COCO17.joints, points, strict=True) if point[2] > 0}
            counts = bool(labelled) and not row.get("iscrowd")
            found[names[row["image_id"]]].append(Annotation(np.array([x, y, x + width, y + height]), labelled, counts))
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise PoseRftError(f"{path} is no COCO keypoint file ({error!r:.120}).") from None


def projections(prediction: Prediction) -> dict[str, NDArray[np.float64]]:
    """Returns {limb joint: (x, y) px} of a placed body."""
    assert prediction.place is not None
    rays = prediction.joints.double().numpy() @ prediction.place.K.T
    return {name: rays[SMPL24.index(name), :2] / rays[SMPL24.index(name), 2] for name in LIMBS}


def body_extent(prediction: Prediction, size: tuple[int, int]) -> NDArray[np.float64]:
    """Returns x0, y0, x1, y1 px of the predicted person: the extent of its landmarks, else of the body."""
    points = None if prediction.seen is None else prediction.seen.points
    if points is not None and len(points.names) == 33:
        return extent(points.xy, *size)
    where = np.stack(list(projections(prediction).values()))
    return np.concatenate([where.min(0).clip(0, size), where.max(0).clip(0, size)])


def judge(found: Sequence[Prediction], people: Sequence[Annotation], size: tuple[int, int]) -> Outcome:
    """Matches predictions with annotated people, the best overlap first."""
    boxes = [body_extent(one, size) for one in found]
    counted = [i for i, person in enumerate(people) if person.counts]
    pairs = sorted(((overlap(box, people[i].box), j, i) for j, box in enumerate(boxes) for i in counted), reverse=True)
    of_person: dict[int, int] = {}
    for share, j, i in pairs:
        if share >= FOUND and i not in of_person and j not in of_person.values():
            of_person[i] = j
    false = 0
    for j, box in enumerate(boxes):
        left_out = any(not person.counts and covered(box, person.box) >= IGNORED for person in people)
        false += j not in of_person.values() and not left_out
    projected, seen = [], []
    for i, j in of_person.items():
        points = found[j].seen.points if found[j].seen else None  # type: ignore[union-attr]
        own = {} if points is None else dict(zip(points.names, points.xy, strict=True))
        for where, errors in ((projections(found[j]), projected), (own, seen)):
            errors += [
                float(np.hypot(*(where[name] - people[i].keypoints[name]))) / people[i].side
                for name in LIMBS
                if name in people[i].keypoints and name in where
            ]
    return Outcome(len(counted), len(of_person), false, projected, seen)


def covered(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Returns the share of `box` that lies in `other`."""
    inside = float(np.prod((np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])).clip(0)))
    return inside / max(float(np.prod(box[2:] - box[:2])), 1e-9)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Aggregates the results of all pictures."""
    errors = {
        kind: np.array([error for one in outcomes for error in getattr(one, kind)]) for kind in ("projected", "seen")
    }
    counts = {name: sum(getattr(one, name) for one in outcomes) for name in ("people", "found", "false")}
    return counts | _figures(errors["projected"], "") | _figures(errors["seen"], "encoder_")


def _figures(errors: NDArray[np.float64], prefix: str) -> dict[str, float | None]:
    median = round(100 * float(np.median(errors)), 2) if len(errors) else None
    near = round(float((errors < NEAR).mean()), 4) if len(errors) else None
    return {f"{prefix}median_percent_of_box": median, f"{prefix}pck10": near}


def on_pictures(predictor: Predictor, file: Path, pictures: Path) -> Iterator[tuple[str, Outcome]]:
    where = {
        path.name: path for path in sorted(pictures.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    }
    for name, people in annotations(file).items():
        path = where.get(Path(name).name)
        if path is None:
            raise PoseRftError(f"{pictures} lacks {name}, which {file} annotates.")
        photograph = read_photograph(path)
        try:
            found = predictor.photograph(photograph)
        except PoseRftError as error:
            print(f"note: {error}", file=sys.stderr)
            found = []
        yield name, judge(found, people, photograph.size)


def on_shards(predictor: Predictor, folder: Path, most: int) -> dict[str, float]:
    """Returns Table 1's errors, mm, on at most `most` evenly spaced people of a converted split, in their own boxes."""
    with tempfile.TemporaryDirectory() as scratch:
        samples = load_samples(str(folder), ShardSet(folder), Path(scratch))
    known = samples.measured.isfinite().all(2).all(1) if is_measured(samples) else samples.labelled.any(1)
    rows = (samples.has_image & known).nonzero()[:, 0].tolist()
    if not rows:
        raise PoseRftError(f"{folder} has no picture with measured joints or an SMPL fit, so it has no 3D truth.")
    rows = rows[:: -(-len(rows) // most)]
    rotations = []
    for row in rows:
        record = samples.shards.record(row)
        assert record.image is not None
        pixels = decode(record.image.data)
        photograph = Photograph(Path(record.key), pixels, *focal_length({}, pixels.shape[1], pixels.shape[0]))
        x, y, side = samples.box[row].tolist()
        rotations.append(predictor.photograph(photograph, [Box((x, y), side, "annotation")])[0].rotations)
    truth = true_joints(samples, rows, lambda gender: load_body_model(predictor.body.folder, gender))
    errors = joint_errors(eval_joints(predictor.body, torch.stack(rotations)), truth.joints)
    return {"people": len(rows)} | {name: round(float(value.mean()), 2) for name, value in errors.items()}


def said(measured: Mapping[str, Any]) -> str:
    """Formats one line per metric."""
    return "\n".join(f"{name:<32}{'-' if value is None else value}" for name, value in measured.items())


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    predictor = Predictor(asked.model, asked.body_model)
    if (asked.root / MANIFEST).is_file():
        return on_shards(predictor, asked.root, asked.most)
    files = [asked.annotations] if asked.annotations else sorted(asked.root.glob("annotations/person_keypoints_*.json"))
    if not files:
        raise PoseRftError(f"{asked.root} has no annotations/person_keypoints_*.json; name a file with --annotations.")
    outcomes = []
    for file in files:
        for name, outcome in on_pictures(predictor, file, asked.pictures or asked.root):
            outcomes.append(outcome)
            if not asked.json:
                one = summary([outcome])
                print(
                    f"{name}: {outcome.found} of {outcome.people} found, {outcome.false} false, median "
                    f"{one['median_percent_of_box']} % of the box (encoder {one['encoder_median_percent_of_box']})"
                )
    return summary(outcomes)


def main() -> None:
    parser = with_predictor.parser("photographs", __doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--most", type=int, default=1_000, help="people of a converted split")
    with_predictor.show(parser.parse_args(), measure, said)


if __name__ == "__main__":
    main()
