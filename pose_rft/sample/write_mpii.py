"""A miniature MPII in the real file formats: images, the nested MAT v5 file, EFT fits.

Pixel coordinates start at 1, as in MATLAB. As in the real file, some fields are missing or empty: people without
`scale` and `objpos`, `is_visible` as text, number or not at all, images without people, test images without joints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.joints import MPII16
from pose_rft.datasets.mpii.labels import BELOW, PX_PER_SCALE
from pose_rft.datasets.mpii.reader import ANNOTATIONS
from pose_rft.io.atomic import canonical_json, write_text
from pose_rft.render.steps import rounded
from pose_rft.sample.matlab_files import cell_column, struct_array, write_v5
from pose_rft.sample.people import Seen, Shot, Studio, box_of, encode
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.varied import is_labelled
from pose_rft.sample.write_coco import eft_row, take_picture
from pose_rft.seeds import numpy_rng

RELEASE = "mpii"
FITS = "MPII_ver01.json"
FOLDER = "mpii_human_pose_v1_u12_2"
PICTURES_PER_TASK = 50
TEST_PICTURES = 3  # their joint labels are withheld
FEWEST_JOINTS = 4  # joints that an annotated person has at least
WITHOUT_FIT, WITHOUT_SCALE = 0.04, 0.02  # shares of people
EMPTY = np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class AnnotatedPerson:
    """joints (16, 3): zero-based px and 1 = visible, 0 = hidden, -1 = outside; box (x, y, w, h) px; fit: EFT's row."""

    joints: np.ndarray
    box: tuple[float, float, float, float]
    fit: dict[str, Any] | None
    has_scale: bool


@dataclass(frozen=True, eq=False)
class Picture:
    """What the annotation file needs to know about one image."""

    name: str
    is_train: bool
    people: tuple[AnnotatedPerson, ...]


def tasks(params: SampleParams, seed: int) -> list[Task]:
    count = params.mpii.train + TEST_PICTURES
    starts = range(0, count, PICTURES_PER_TASK)
    payloads = [tuple(range(start, min(start + PICTURES_PER_TASK, count))) for start in starts]
    return [Task(RELEASE, i, payload, len(payload)) for i, payload in enumerate(payloads)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> list[Picture]:
    return [_picture(index, params, seed, studio, root / RELEASE) for index in task.payload]


def finish(params: SampleParams, seed: int, results: Sequence[list[Picture]], root: Path) -> None:
    pictures = [picture for result in results for picture in result]
    write_annotations(root / RELEASE / FOLDER / ANNOTATIONS, pictures)
    fits = [person.fit for picture in pictures if picture.is_train for person in picture.people if person.fit]
    write_text(root / RELEASE / FITS, canonical_json({"ver": 1.0, "data": fits}))


def write_annotations(path: Path, pictures: Sequence[Picture]) -> None:
    """Writes the .mat file: the struct RELEASE with annolist, img_train, version, single_person, act, video_list."""
    annolist = [
        {
            "image": struct_array([{"name": picture.name}]),
            "annorect": _annorect(picture),
            "frame_sec": EMPTY,
            "vididx": EMPTY,
        }
        for picture in pictures
    ]
    alone = [np.arange(1.0, len(picture.people) + 1)[:, None] for picture in pictures]
    activity = {"cat_name": "sports", "act_name": "miniature", "act_id": 1.0}
    release = {
        "annolist": struct_array(annolist),
        "img_train": np.array([[int(picture.is_train) for picture in pictures]], np.uint8),
        "version": "12",
        "single_person": cell_column(alone),
        "act": struct_array([activity] * len(pictures)).T,
        "video_list": cell_column(["miniature"]).T,
    }
    write_v5(path, {"RELEASE": struct_array([release])})


def picture_name(index: int) -> str:
    """Returns a nine-digit file name; the numbers are scattered like MPII's."""
    return f"{(index * 7_919 + 15_601_864) % 100_000_000:09d}.jpg"


def _picture(index: int, params: SampleParams, seed: int, studio: Studio, folder: Path) -> Picture:
    rng = numpy_rng(seed, "sample", RELEASE, index)
    short = params.mpii.size
    shot = take_picture(rng, studio, (round(short * 16 / 9), short), params, index < params.mpii.train)
    name = picture_name(index)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images" / name).write_bytes(encode(shot.image))
    annotated = (_annotate(seen, shot, name, rng, studio) for seen in shot.seen)
    return Picture(name, index < params.mpii.train, tuple(person for person in annotated if person is not None))


def _annotate(seen: Seen, shot: Shot, name: str, rng: np.random.Generator, studio: Studio) -> AnnotatedPerson | None:
    """Annotates a person; returns None if hardly anything of them is inside the image."""
    if not is_labelled(seen):
        return None
    view = shot.view
    points = view.project(studio.body(seen.person.identity.gender).keypoints(seen.vertices, seen.joints, MPII16))
    joints = np.concatenate([rounded(points, 4), np.full((len(points), 1), -1.0)], axis=1)
    inside = ((points >= 0) & (points < np.array(view.size))).all(axis=1)
    for i in np.flatnonzero(inside):
        joints[i, 2] = seen.mask[int(points[i, 1]), int(points[i, 0])]
    if inside.sum() < FEWEST_JOINTS:
        return None
    box = box_of(view.project(seen.vertices), view.size)
    fit = None if rng.uniform() < WITHOUT_FIT else eft_row(seen, view.K, box, name, None)
    return AnnotatedPerson(joints, box, fit, rng.uniform() >= WITHOUT_SCALE)


def _annorect(picture: Picture) -> np.ndarray:
    """Returns the people in an image; all elements of a MATLAB struct array have the same fields, empty if unknown."""
    if not picture.people:
        return EMPTY
    rows, variant = [], int(Path(picture.name).stem)
    for number, person in enumerate(picture.people):
        x, y, width, height = person.box
        scale = max(width, height) / PX_PER_SCALE
        # Chosen so that the square crop that readers commonly derive is centred on the person.
        center = {"x": x + width / 2 + 1, "y": y + height / 2 - BELOW * scale + 1}
        row: dict[str, Any] = {
            "scale": scale if person.has_scale else EMPTY,
            "objpos": struct_array([center]) if person.has_scale else EMPTY,
        }
        if picture.is_train:
            head = person.joints[MPII16.index("head_top"), :2]
            row = {"x1": head[0], "y1": head[1], "x2": head[0] + 1, "y2": head[1] + 1} | row
            row["annopoints"] = struct_array([{"point": _points(person.joints, (variant + number) % 4)}])
        rows.append(row)
    return struct_array(rows)


def _points(joints: np.ndarray, variant: int) -> np.ndarray:
    """Returns the labelled joints; `is_visible` in a variant of the real file: number, text, partly empty, absent."""
    points = []
    for joint, (x, y, visible) in enumerate(joints):
        if visible < 0:
            continue
        point: dict[str, Any] = {"x": x + 1, "y": y + 1, "id": float(joint)}
        if variant < 3:
            point["is_visible"] = (np.uint8(visible), str(int(visible)), float(visible) if joint % 4 else EMPTY)[
                variant
            ]
        points.append(point)
    return struct_array(points)
