"""COCO people: keypoints of `person_keypoints_*.json`, SMPL from published fits (`still_fits.py`).

Layout (2014 or 2017 names): `annotations/person_keypoints_{train,val}YEAR.json`, `trainYEAR/`, `valYEAR/`. A person is
a sample if it is not a crowd and at least `body_joints` of its 12 body joints (shoulders, elbows, wrists, hips, knees,
ankles) are labelled; 12 is SPIN's rule (28,344 people of train2014). People without a fit keep their keypoints.
Sources: cocodataset/cocoapi, SPIN datasets/preprocess/coco.py, facebookresearch/eft.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pose_rft.body.joints import COCO17
from pose_rft.datasets.common.base import Reader, Unit, check_split, existing_files, require, sample_key, square_box
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture, picture_path
from pose_rft.datasets.fits.sources import NOT_FINITE, FitSource, fit_files
from pose_rft.datasets.fits.still_fits import Anchor, StillFits
from pose_rft.errors import PoseRftError
from pose_rft.io.find import files_below
from pose_rft.io.json_files import read_json
from pose_rft.params import Fraction, Section
from pose_rft.record import Defect, Keypoints, Record

BODY = COCO17.indices([joint for joint in COCO17.joints if joint.split("_")[-1] not in ("nose", "eye", "ear")])
BOX_SCALE = 1.2  # SPIN
POSETRACK18 = (
    "nose head_bottom head_top left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
# Joint sets of other COCO-style files by joint count, for the error message. MMPose's Human3.6M files swap left and
# right in the joint names, so they cannot be read by name either.
OTHER_SETS = {
    14: "CrowdPose or AI Challenger (AIC)",
    16: "MPII",
    26: "Halpe",
    133: "COCO-WholeBody",
    136: "Halpe",
}


class CocoParams(Section):
    """`datasets.coco` in params.yaml. fits: files below the root; the first that has a person is used."""

    root: str = "coco"
    splits: tuple[Literal["train", "val"], ...] = ("train",)
    year: Literal[2014, 2017] = 2017
    fits: tuple[FitSource, ...] = ()
    body_joints: int = Field(default=12, ge=0, le=12)
    max_defect_rate: Fraction = 0.01


class Coco(Reader):
    """Reader of COCO; a unit is one image with all its people."""

    Params = CocoParams
    params: CocoParams
    dataset = "coco"
    licence = "COCO annotations CC BY 4.0, photographs under their Flickr licences; EFT fits CC BY-NC 4.0"
    where_to_get = "https://cocodataset.org/#download (fits: https://github.com/facebookresearch/eft)"

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "val"), self.dataset)
        path = self._annotations(split)
        images, annotations = read_persons(path)
        fits = StillFits(self.params.fits, self.root, self.body_model)
        persons: dict[int, list[Annotation]] = defaultdict(list)
        for row in annotations:
            labelled = int((row.points[BODY, 2] > 0).sum())
            # People with non-finite keypoints are kept; they become defects when read.
            if not row.is_crowd and (labelled >= max(self.params.body_joints, 1) or not row.is_finite):
                persons[row.image].append(row)
        units = []
        for image_id, rows in persons.items():
            rows.sort(key=lambda row: row.id)
            if image_id not in images:
                raise PoseRftError(f"{path}: annotation {rows[0].id} names no listed image; download it again.")
            name, size = images[image_id]
            joined = fits.of_picture(name, [Anchor(row.id, row.center) for row in rows])
            payload = (image_id, name, size, tuple(zip(rows, joined, strict=True)))
            units.append(Unit(f"{image_id:012d}", len(rows), payload))
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        image_id, name, size, rows = unit.payload
        try:
            picture = load_picture(picture_path(self.root / f"{split}{self.params.year}", name), size)
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, str(row.id)) for row, _ in rows)
            return
        for row, fit in rows:
            x, y, w, h = row.bbox
            if not row.is_finite:
                yield Defect(unit.key, str(row.id), "broken keypoints", f"{name}: {NOT_FINITE}")
                continue
            if not (w > 1 and h > 1):  # also true for NaN
                yield Defect(unit.key, str(row.id), "empty box", f"{name}: bbox {list(row.bbox)}")
                continue
            if not (x < size[0] and y < size[1] and x + w > 0 and y + h > 0):
                yield Defect(unit.key, str(row.id), "box outside the picture", f"{name}: bbox {list(row.bbox)}")
                continue
            if fit is not None and fit.problem is not None:
                yield Defect(unit.key, str(row.id), "broken fit", fit.problem)
                continue
            points = row.points
            provenance = [("joints2d", "COCO annotation; confidence 1 = labelled, visible or occluded")]
            box = square_box(x, y, x + w, y + h, BOX_SCALE, f"COCO bbox x{BOX_SCALE}")
            smpl = camera = None
            if fit is not None:
                smpl, camera = fit.placed(points, COCO17.name, box.center, box.side, self.body_model)
                provenance += [("smpl", fit.note), ("camera", fit.camera_note)]
            yield Record(
                key=sample_key("coco", f"{image_id:012d}", str(row.id)),
                dataset=self.dataset,
                split=split,
                image=picture,
                subject=str(row.id),
                sequence=unit.key,
                box=box,
                smpl=smpl,
                camera=camera,
                joints2d=Keypoints(points, COCO17.name),
                provenance=tuple(provenance),
            )

    def inventory(self) -> list[Path]:
        sets = [f"{split}{self.params.year}" for split in self.params.splits]
        files = existing_files(self.root, [f"annotations/person_keypoints_{name}.json" for name in sets])
        pictures = (Path(path) for name in sets for path in files_below(self.root / name))  # whatever their names
        return sorted({*files, *pictures, *fit_files(self.params.fits, self.root)})

    def _annotations(self, split: str) -> Path:
        path = self.root / "annotations" / f"person_keypoints_{split}{self.params.year}.json"
        return require(path, self.dataset, self.where_to_get)


@dataclass(frozen=True, eq=False)
class Annotation:
    """A person: ids; bbox (x, y, width, height) px; points (17, 3): px and 1 if labelled, else 0, 0, 0."""

    id: int
    image: int
    is_crowd: bool
    bbox: tuple[float, float, float, float]
    points: np.ndarray

    @property
    def is_finite(self) -> bool:
        """Whether all keypoints are finite."""
        return bool(np.isfinite(self.points).all())

    @property
    def center(self) -> tuple[float, float]:
        """The centre of the box, px."""
        x, y, w, h = self.bbox
        return x + w / 2, y + h / 2


def read_persons(path: Path) -> tuple[dict[int, tuple[str, tuple[int, int]]], list[Annotation]]:
    """Returns file name and (width, height) px of each image by id, and the people, of a COCO keypoint file.

    Raises:
        PoseRftError: not a COCO keypoint file, or its joint set is not supported.
    """
    content, what = read_json(path, dict), "the file"
    try:
        orders = {int(category["id"]): _order(category["keypoints"], path) for category in _named_joints(content)}
        images = {}
        for number, image in enumerate(content["images"]):
            what = f"image {number}"
            images[int(image["id"])] = (str(image["file_name"]), (int(image["width"]), int(image["height"])))
        annotations = []
        for number, row in enumerate(content["annotations"]):
            what = f"annotation {number}"
            annotations.append(_annotation(row, orders, path))
        return images, annotations
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        cause = f"{what}: {type(error).__name__}, {' '.join(str(error).split())[:80]}"
        raise PoseRftError(
            f"{path} is not a COCO keypoint file ({cause}); expected `images` and `annotations` as in "
            "person_keypoints_*.json, download it again."
        ) from None


def _named_joints(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [category for category in content.get("categories") or () if category.get("keypoints")]


def _order(names: Sequence[str], path: Path) -> list[int]:
    """Returns the index of each of COCO's 17 joints in the annotations, -1 if it is missing.

    Raises:
        PoseRftError: the joint set is neither COCO's nor PoseTrack18's, which lacks only the eyes.
    """
    names = [str(name) for name in names]
    if names == list(COCO17.joints) or names == POSETRACK18.split():
        return [names.index(joint) if joint in names else -1 for joint in COCO17.joints]
    raise PoseRftError(_other_joints(path, f"{len(names)} joints ({', '.join(names[:4])}, …)", len(names), names))


def _other_joints(path: Path, found: str, count: int, names: Sequence[str] = ()) -> str:
    """Returns the error message for an unsupported joint set, with the name of the format if known."""
    kind = "Human3.6M's" if names and ("root" in names[0] or "pelvis" in names[0]) else OTHER_SETS.get(count)
    told = f", those of {kind}" if kind else ""
    return (
        f"{path} has people of {found}{told}; this reader takes COCO's 17 joints, also from PoseTrack18's by their "
        "names, and no other joint set."
    )


def _annotation(row: Mapping[str, Any], orders: Mapping[int, list[int]], path: Path) -> Annotation:
    x, y, w, h = (float(value) for value in row["bbox"])
    points = np.array(row["keypoints"], np.float32).reshape(-1, 3)
    if len(points) != len(COCO17):
        raise PoseRftError(_other_joints(path, f"{len(points)} joints", len(points)))
    if orders:
        order = orders[int(row.get("category_id", next(iter(orders))))]
        points = np.where(np.array(order)[:, None] >= 0, points[order], 0)
    if np.isfinite(points).all():
        points[:, 2] = points[:, 2] > 0
        points[points[:, 2] == 0] = 0
    return Annotation(int(row["id"]), int(row["image_id"]), bool(row.get("iscrowd")), (x, y, w, h), points)


READER = Coco
