"""MPII: pictures with one MAT v5 file of nested structs, SMPL from published fits (`still_fits.py`).

A person of a training picture is a sample if it has joints (the release withholds those of its test pictures). MATLAB
counts pixels from 1, so 1 is subtracted. Fits carry MPII's file name but no number of the person: a fit belongs to the
person of that picture whose centre is nearest to the centre of the fitted crop. Layout and traps: dataset notes
section 4.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pose_rft.body.joints import MPII16
from pose_rft.errors import PoseRftError
from pose_rft.io.matlab import number, read_mat, structs, text
from pose_rft.params import Fraction, Section
from pose_rft.record import Box, Defect, Keypoints, Record
from pose_rft.releases.base import Reader, Unit, box_around, check_split, existing_files, require, sample_key
from pose_rft.releases.fits import FitSource, fit_files
from pose_rft.releases.pictures import UnreadablePicture, load_picture
from pose_rft.releases.still_fits import Anchor, StillFits

ANNOTATIONS = "mpii_human_pose_v1_u12_1.mat"
PX_PER_SCALE = 200.0  # `scale` is the person's height over 200
# pose-hg-train's square: 15 px per scale below `objpos`, 1.25 times the height (measured on its valid.h5).
BELOW, MARGIN = 15.0, 1.25
JOINTS_SCALE = 1.2


class MpiiParams(Section):
    """`datasets.mpii` in params.yaml. fits: files below the root, the first that has a person counts."""

    root: str = "mpii"
    splits: tuple[Literal["train"], ...] = ("train",)
    fits: tuple[FitSource, ...] = ()
    max_defect_rate: Fraction = 0.01


@dataclass(frozen=True, eq=False)
class Person:
    """index: place in the picture's `annorect`; joints (16, 3) px from 0 + labelled; center and height px, or None."""

    index: int
    joints: np.ndarray
    center: tuple[float, float] | None
    height: float | None

    @property
    def box(self) -> Box:
        if self.center is None or self.height is None:
            return box_around(self.joints[self.joints[:, 2] > 0, :2], JOINTS_SCALE, f"joints2d x{JOINTS_SCALE}")
        x, y = self.center
        below = y + BELOW * self.height / PX_PER_SCALE
        return Box((round(x, 3), round(below, 3)), round(MARGIN * self.height, 3), f"MPII scale x{MARGIN}")


class Mpii(Reader):
    """Reader of MPII; a unit is one picture with all its people."""

    Params = MpiiParams
    params: MpiiParams
    dataset = "mpii"
    licence = "MPII Human Pose: simplified BSD for annotations, pictures for research; EFT fits CC BY-NC 4.0"
    where_to_get = "http://human-pose.mpi-inf.mpg.de (fits: https://github.com/facebookresearch/eft)"
    published_counts: Mapping[str, Mapping[str, int]] = {"train": {"persons": 29_116, "eft_fits": 14_361}}

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train",), self.dataset)
        require(self.root, self.dataset, self.where_to_get)
        fits = StillFits(self.params.fits, self.root)
        units = []
        for image, people in read_train_people(self._annotations()):
            joined = fits.of_picture(image, [Anchor(None, person.box.center) for person in people])
            payload = (image, tuple(zip(people, joined, strict=True)))
            units.append(Unit(sample_key(Path(image).stem), len(people), payload))
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        image, people = unit.payload
        try:
            picture = load_picture(self.root / "images" / image)
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, str(person.index)) for person, _ in people)
            return
        for person, fit in people:
            provenance = [("joints2d", "annopoints, minus 1 px; confidence 1 = labelled, visible or not")]
            smpl = camera = None
            if fit is not None:
                box = person.box
                smpl, camera = fit.placed(person.joints, MPII16.name, box.center, box.side, self.body_model)
                provenance += [("smpl", fit.note), ("camera", fit.camera_note)]
            yield Record(
                key=sample_key("mpii", unit.key, str(person.index)),
                dataset=self.dataset,
                split=split,
                image=picture,
                subject=f"{unit.key}-{person.index}",
                sequence=unit.key,
                box=person.box,
                smpl=smpl,
                camera=camera,
                joints2d=Keypoints(person.joints, MPII16.name),
                provenance=tuple(provenance),
            )

    def inventory(self) -> list[Path]:
        files = existing_files(self.root, [f"**/{ANNOTATIONS}", "images/*.jpg"])
        return sorted({*files, *fit_files(self.params.fits, self.root)})

    def _annotations(self) -> Path:
        """The .mat file, in whatever folder the archive was unpacked to."""
        found = sorted(self.root.glob(f"**/{ANNOTATIONS}"))
        return found[0] if found else require(self.root / ANNOTATIONS, self.dataset, self.where_to_get)


def read_train_people(path: Path) -> Iterator[tuple[str, list[Person]]]:
    """(file name, its people that have joints) of every training picture that has any, in the file's order.

    Raises:
        PoseRftError: not a readable MATLAB file, or not MPII's `RELEASE` struct.
    """
    release = structs(read_mat(path).get("RELEASE"))
    if not release or "annolist" not in release[0] or "img_train" not in release[0]:
        raise PoseRftError(f"{path} has no RELEASE with annolist and img_train; get {ANNOTATIONS} again.")
    pictures = structs(release[0]["annolist"])
    is_train = np.asarray(release[0]["img_train"]).ravel()
    if len(is_train) != len(pictures):
        raise PoseRftError(f"{path}: {len(pictures)} pictures but {len(is_train)} entries of img_train; get it again.")
    for picture, train in zip(pictures, is_train, strict=True):
        if train != 1:
            continue
        people = [_person(i, rect) for i, rect in enumerate(structs(picture.get("annorect")))]
        labelled = [person for person in people if person is not None]
        names = structs(picture.get("image"))
        if labelled and names:
            yield text(names[0]["name"]), labelled


def _person(index: int, rect: Mapping[str, Any]) -> Person | None:
    """None if there are no joints. Any field may be missing or empty."""
    annopoints = structs(rect.get("annopoints"))
    points = structs(annopoints[0].get("point")) if annopoints else []
    joints = np.zeros((len(MPII16), 3))
    for point in points:
        joint, x, y = (number(point.get(name)) for name in ("id", "x", "y"))
        if joint is not None and x is not None and y is not None and 0 <= joint < len(MPII16):
            joints[int(joint)] = x - 1, y - 1, 1
    if not joints[:, 2].any():
        return None
    position = structs(rect.get("objpos"))
    x, y = (number(position[0].get(name)) if position else None for name in ("x", "y"))
    scale = number(rect.get("scale"))
    center = (x - 1, y - 1) if x is not None and y is not None else None
    return Person(index, joints, center, scale * PX_PER_SCALE if scale else None)
