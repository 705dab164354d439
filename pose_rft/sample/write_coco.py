"""A miniature COCO (2017 names) with EFT fits, in the real file formats.

`annotations/person_keypoints_{train,val}2017.json`, `{train,val}2017/%012d.jpg`, `eft/COCO2014-{All,Val}-ver*.json`.
Some people have unlabelled joints; a few images have a crowd region (RLE, zero keypoints) or are grayscale.
Sources: cocodataset/cocoapi (format), facebookresearch/eft docs/README_dataformat.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pose_rft.body.joints import COCO17, OPENPOSE18
from pose_rft.io.atomic import canonical_json, write_text
from pose_rft.render.steps import rounded
from pose_rft.sample.people import Seen, Shot, Size, Studio, encode, framed_view
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.questions import Facts, facts_of
from pose_rft.sample.varied import is_labelled, varied_shot
from pose_rft.seeds import numpy_rng

RELEASE = "coco"
PICTURES_PER_TASK = 50
SPLITS = ("train", "val")
EFT_FILES = {"train": "COCO2014-All-ver01.json", "val": "COCO2014-Val-ver10.json"}
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
CATEGORY = {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": list(COCO17.joints),
    "skeleton": [list(bone) for bone in SKELETON],
}
UNLABELLED = 0.06  # share of people with partly missing keypoints
PARTS = (
    [joint for joint in COCO17.joints if joint.endswith(("ankle", "knee"))],
    [joint for joint in COCO17.joints if joint.endswith(("wrist", "elbow"))],
    [joint for joint in COCO17.joints if joint.startswith("left_") and not joint.endswith(("eye", "ear"))],
)
GRAYSCALE = 0.01
CROWD = 0.02
SMALLEST_EFT_BODY = 6  # labelled body joints that EFT's "All" set requires


@dataclass(frozen=True)
class Picture:
    """What the annotation files and the dialogues need to know about one image."""

    split: str
    image: dict[str, Any]
    annotations: tuple[dict[str, Any], ...]
    fits: tuple[dict[str, Any], ...]
    facts: Facts


def tasks(params: SampleParams, seed: int) -> list[Task]:
    numbers = [("train", i) for i in range(params.coco.train)] + [("val", i) for i in range(params.coco.val)]
    chunks = [tuple(numbers[i : i + PICTURES_PER_TASK]) for i in range(0, len(numbers), PICTURES_PER_TASK)]
    return [Task(RELEASE, i, chunk, len(chunk)) for i, chunk in enumerate(chunks)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> list[Picture]:
    return [_picture(split, i, params, seed, studio, root / RELEASE) for split, i in task.payload]


def finish(params: SampleParams, seed: int, results: Sequence[list[Picture]], root: Path) -> None:
    pictures = [picture for result in results for picture in result]
    for split in SPLITS:
        mine = [picture for picture in pictures if picture.split == split]
        content = {
            "info": {"description": "Miniature of COCO 2017, rendered", "version": "1.0", "year": 2017},
            "licenses": [{"id": 1, "name": "CC0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
            "images": [picture.image for picture in mine],
            "annotations": [row for picture in mine for row in picture.annotations],
            "categories": [CATEGORY],
        }
        write_text(root / RELEASE / "annotations" / f"person_keypoints_{split}2017.json", canonical_json(content))
        fits = {"ver": 1.0, "data": [row for picture in mine for row in picture.fits]}
        write_text(root / RELEASE / "eft" / EFT_FILES[split], canonical_json(fits))


def image_id(split: str, index: int) -> int:
    """Returns a scattered id, like COCO's; unique for indices below 250,007 (a prime), odd in train, even in val."""
    return 1 + 2 * ((index * 274_177 + 99_991) % 250_007) + (split == "val")


def annotation_id(split: str, index: int, person: int) -> int:
    """Returns the id of a person's annotation."""
    return 200_000 + 10 * index + person + (5 if split == "val" else 0)


def picture_size(longest: int, rng: np.random.Generator) -> Size:
    """Draws (width, height) px: landscape, portrait or square."""
    short = round(longest * 0.75)
    return ((longest, short), (short, longest), (longest, longest))[int(rng.choice(3, p=(0.45, 0.35, 0.2)))]


def place_people(rng: np.random.Generator, studio: Studio, two: float) -> list[Any]:
    """Places one person, or two side by side with probability `two`."""
    if rng.uniform() >= two:
        return [studio.somebody(rng)]
    gap = rng.uniform(0.55, 0.8)
    return [studio.somebody(rng, at=(x, rng.uniform(-0.3, 0.3))) for x in (-gap, gap)]


def take_picture(rng: np.random.Generator, studio: Studio, size: Size, params: SampleParams, training: bool) -> Shot:
    """Renders a plain image of one or two people or, in training sets with probability `varied`, a varied image."""
    if training and rng.uniform() < params.varied:
        return varied_shot(rng, studio, size)
    people = place_people(rng, studio, params.two_people)
    return studio.shoot(rng, people, framed_view(rng, people, size), occluder=0.15)


def _picture(split: str, index: int, params: SampleParams, seed: int, studio: Studio, folder: Path) -> Picture:
    rng = numpy_rng(seed, "sample", RELEASE, split, index)
    shot = take_picture(rng, studio, picture_size(params.coco.size, rng), params, split == "train")
    number = image_id(split, index)
    gray = rng.uniform() < GRAYSCALE
    path = folder / f"{split}2017" / f"{number:012d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(cv2.cvtColor(shot.image, cv2.COLOR_RGB2GRAY) if gray else shot.image))

    annotations, fits = [], []
    for person, seen in enumerate(shot.seen):
        if not is_labelled(seen):
            continue
        row = _annotation(annotation_id(split, index, person), number, seen, shot, rng, studio)
        annotations.append(row)
        body = np.asarray(row["keypoints"]).reshape(17, 3)[5:, 2] > 0
        if body.sum() >= SMALLEST_EFT_BODY:
            name = f"COCO_{split}2014_{number:012d}.jpg"
            fits.append(eft_row(seen, shot.view.K, row["bbox"], name, row["id"]))
    if rng.uniform() < CROWD:
        annotations.append(_crowd(rng, number, shot.view.size))
    image = {
        "license": 1,
        "file_name": path.name,
        "coco_url": f"http://images.cocodataset.org/{split}2017/{path.name}",
        "height": shot.view.height,
        "width": shot.view.width,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": "",
        "id": number,
    }
    return Picture(split, image, tuple(annotations), tuple(fits), facts_of(shot, studio, gray))


def _annotation(
    identity: int, image: int, seen: Seen, shot: Shot, rng: np.random.Generator, studio: Studio
) -> dict[str, Any]:
    joints = studio.body(seen.person.identity.gender).keypoints(seen.vertices, seen.joints, COCO17)
    points = shot.view.project(joints)
    missing = PARTS[int(rng.integers(len(PARTS)))] if rng.uniform() < UNLABELLED else []
    keypoints: list[float] = []
    labelled = 0
    for name, (x, y) in zip(COCO17.joints, points, strict=True):
        inside = 0 <= x < shot.view.width and 0 <= y < shot.view.height
        if not inside or name in missing:
            keypoints += [0, 0, 0]
            continue
        labelled += 1
        keypoints += [round(float(x), 1), round(float(y), 1), 2 if seen.mask[int(y), int(x)] else 1]
    segmentation = polygons(seen.mask)
    rows, columns = np.nonzero(seen.mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        "segmentation": segmentation,
        "num_keypoints": labelled,
        "area": float(seen.mask.sum()),
        "iscrowd": 0,
        "keypoints": keypoints,
        "image_id": image,
        "bbox": [float(x), float(y), float(columns.max() + 1 - x), float(rows.max() + 1 - y)],
        "category_id": 1,
        "id": identity,
    }


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Returns the outlines of a mask (H, W) bool, each as x, y, x, y, … px."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rough = (cv2.approxPolyDP(contour, 0.8, True).reshape(-1) for contour in contours)
    return [[float(value) for value in outline] for outline in rough if len(outline) >= 6]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Returns COCO's uncompressed RLE: alternating runs of zeros and ones in column-major order, zeros first."""
    flat = mask.astype(np.int8).T.reshape(-1)
    changes = np.nonzero(np.diff(flat))[0] + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs


def _crowd(rng: np.random.Generator, image: int, size: Size) -> dict[str, Any]:
    """Returns a crowd region, too many people to annotate, near the top of the image."""
    width, height = size
    x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 8))
    w, h = int(rng.integers(8, width // 3)), int(rng.integers(6, height // 5))
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = True
    return {
        "segmentation": {"counts": run_lengths(mask), "size": [height, width]},
        "num_keypoints": 0,
        "area": float(mask.sum()),
        "iscrowd": 1,
        "keypoints": [0] * 51,
        "image_id": image,
        "bbox": [float(x), float(y), float(w), float(h)],
        "category_id": 1,
        "id": 900_100_000_000 + image,
    }


def eft_row(
    seen: Seen, K: np.ndarray, bbox: Sequence[float], image_name: str, annotation: int | None
) -> dict[str, Any]:
    """Returns a row of an EFT file: the true body and the best-fitting weak-perspective camera for a crop of bbox x1.2.

    With the crop mapped to [-1, 1]: image = scale * body + shift, body = SMPL joints without translation.
    """
    x, y, w, h = bbox
    center, side = np.array([x + w / 2, y + h / 2]), 1.2 * max(w, h)
    local = (seen.joints - seen.transl)[:, :2]
    target = (seen.joints2d - center) / (side / 2)
    # Solves for scale and shift by least squares: rows [x 1 0] and [y 0 1].
    ones, zeros = np.ones(len(local)), np.zeros(len(local))
    left = np.concatenate([np.stack([local[:, 0], ones, zeros], 1), np.stack([local[:, 1], zeros, ones], 1)])
    cam = np.linalg.lstsq(left, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    row = {
        "parm_pose": rounded(seen.rotations, 6).tolist(),
        "parm_shape": rounded(seen.person.identity.betas, 6).tolist(),
        "parm_cam": rounded(cam, 6).tolist(),
        "bbox_scale": side / 200,
        "bbox_center": center.tolist(),
        "joint_validity_openpose18": [True] * len(OPENPOSE18),
        "smpltype": "smpl",
        "imageName": image_name,
    }
    return row if annotation is None else {**row, "annotId": annotation}
