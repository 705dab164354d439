"""4D-Humans' training tars (`dataset_tars/DATASET/%06d.tar`) as data sets: their images and labels become shards.

A sample in a tar is `KEY.jpg` (or png, jpeg), `KEY.data.pyd` and sometimes `KEY.detection.npz`, which is not used. The
`.pyd` is a pickle, so the restricted unpickler reads it; the tar is read in memory and nothing is unpacked. KEY may
contain a folder (`aic-train/<sha1>`). A damaged member makes the people of its image defects; it does not stop the job.
Source: shubham-goel/4D-Humans hmr2/datasets/image_dataset.py, datasets_tar.yaml;
docs/formats.md, Label files of others.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from pose_rft.body.joints import SPIN24
from pose_rft.datasets.common.base import Reader, Unit, check_split, require, sample_key
from pose_rft.datasets.common.labels import labelled, plausible
from pose_rft.datasets.common.pictures import UnreadablePicture, parse_picture
from pose_rft.datasets.fits.crop_placement import in_crop_camera
from pose_rft.datasets.fits.still_fit import CROP_CAMERA_NOTE
from pose_rft.datasets.label_files.rows import HMR2_JOINTS, hmr2_joints, side_px
from pose_rft.errors import PoseRftError
from pose_rft.io.archives import tar_members
from pose_rft.io.unpickle import read_pickle_stream
from pose_rft.params import Fraction, Section
from pose_rft.record import Box, Defect, Image, Keypoints, Record

TAR_NAME = re.compile(r"\d{6}\.tar$")
PICTURES = ("jpg", "jpeg", "png")
LABELS = "data.pyd"
SOURCE = "hmr2"


class Hmr2TarsParams(Section):
    """`datasets.hmr2_tars` in params.yaml. folders: split → folder of tars below the root."""

    root: str = "hmr2_training_data/dataset_tars"
    folders: dict[str, str] = Field(default_factory=dict)
    max_defect_rate: Fraction = 0.01

    @property
    def splits(self) -> tuple[str, ...]:
        """One split for each folder of tars."""
        return tuple(self.folders)


class Hmr2Tars(Reader):
    """Reader of 4D-Humans' tars; a unit is one tar."""

    Params = Hmr2TarsParams
    params: Hmr2TarsParams
    dataset = "hmr2_tars"
    licence = "that of the data sets which the tars were made of"
    where_to_get = "https://github.com/shubham-goel/4D-Humans (fetch_training_data.sh)"

    def units(self, split: str) -> list[Unit]:
        folder = self._folder(split)
        tars = self._tars(folder)
        if not tars:
            raise PoseRftError(f"{folder} holds no tars named 000000.tar and so on; get them from {self.where_to_get}.")
        units = []
        for path in tars:
            expected = sum(len(people) for _, people, _ in samples(path, path.name))
            if expected:
                units.append(Unit(sample_key(split, path.stem), expected, (path.name,)))
        return units

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        (name,) = unit.payload
        path = self._folder(split) / name
        for key, people, picture in samples(path, name):
            where = sample_key(split, path.stem, key.replace("/", "_"))
            try:
                if picture is None:
                    raise UnreadablePicture("missing image", f"{name}: {key} has no picture")
                image = parse_picture(picture, key)
            except UnreadablePicture as problem:
                yield from (problem.defect(unit.key, f"{key} person {i}") for i in range(len(people)))
                continue
            for number, person in enumerate(people):
                yield self._person(where, number, person, image, split, unit.key, f"{name}, {key}")

    def inventory(self) -> list[Path]:
        return sorted(path for split in self.params.folders for path in self._tars(self._folder(split)))

    def _folder(self, split: str) -> Path:
        check_split(split, self.params.folders, self.dataset)
        return require(self.root / self.params.folders[split], self.dataset, self.where_to_get)

    def _tars(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.iterdir() if TAR_NAME.fullmatch(path.name))

    def _person(
        self, where: str, number: int, person: Any, image: Image, split: str, unit: str, origin: str
    ) -> Record | Defect:
        row = f"{where} person {number}"
        try:
            fields = _fields(person)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            return Defect(unit, row, "malformed label", f"{origin}: {type(error).__name__}: {str(error)[:120]}")
        center, side, pose, betas, joints2d, joints3d = fields
        if pose is None and joints2d is None and joints3d is None:
            return Defect(unit, row, "no label", f"{origin}: neither a body nor joints")
        placed = in_crop_camera(center, side, pose, betas, joints2d, joints3d, self.body_model, SOURCE)
        provenance = [("labels", f"4D-Humans {origin}, person {number}")]
        if placed.camera is not None:
            provenance.append(("camera", CROP_CAMERA_NOTE))
        return Record(
            key=sample_key(where, str(number)).replace("__", "_"),
            dataset=self.dataset,
            split=split,
            image=image,
            subject=where,
            sequence=split,
            box=Box(center, side, "scale of the label file"),
            smpl=placed.smpl,
            joints3d=None if placed.joints3d is None else Keypoints(placed.joints3d, SPIN24.name),
            joints2d=None if joints2d is None else Keypoints(joints2d, SPIN24.name),
            camera=placed.camera,
            provenance=tuple(provenance),
        )


def samples(path: Path, where: str) -> Iterator[tuple[str, Sequence[Any], bytes | None]]:
    """Yields (key, people, image bytes) of every labelled image of a tar, in tar order.

    Members of a key are adjacent, as WebDataset writes them. Labels that are damaged or refer to code count as one
    invalid person, so that the image becomes a defect instead of disappearing.

    Raises:
        PoseRftError: the tar is damaged, or a member name points outside of it.
    """
    current: str | None = None
    picture: bytes | None = None
    people: Sequence[Any] | None = None
    for name, content in tar_members(path):
        key, _, extension = _split(name)
        if key != current:
            if current is not None and people is not None:
                yield current, people, picture
            current, picture, people = key, None, None
        if extension in PICTURES:
            picture = content
        elif extension == LABELS:
            people = _people(content, f"{where}, {name}")
    if current is not None and people is not None:
        yield current, people, picture


def _split(name: str) -> tuple[str, str, str]:
    """Splits a name into key (up to the first dot of the basename), dot and extension, as WebDataset does."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return folder + slash + stem, dot, extension.lower()


def _people(content: bytes, where: str) -> Sequence[Any]:
    try:
        people = read_pickle_stream(io.BytesIO(content), where)
    except PoseRftError as problem:
        return (problem,)
    return people if isinstance(people, list) else (people,)


def _fields(person: Any) -> tuple[Any, ...]:
    """Returns centre and side (px), pose (24, 3), betas (10,), joints2d (24, 3), joints3d (24, 4); None if unlabelled.

    Raises:
        ValueError, KeyError, …: not a person in 4D-Humans' format.
    """
    if isinstance(person, PoseRftError):
        raise ValueError(str(person))
    x, y = (round(float(v), 3) for v in np.asarray(person["center"], np.float64).reshape(2))
    side = round(float(side_px(np.asarray(person["scale"], np.float64).reshape(1, -1))[0]), 3)
    if not plausible(np.array([x, y, side])).all() or side <= 1:
        raise ValueError(f"centre {x, y} and side {side}")
    pose = betas = None
    if np.any(person.get("has_body_pose", True)) and "body_pose" in person:
        pose = np.asarray(person["body_pose"], np.float64).reshape(24, 3)
        betas = np.asarray(person["betas"], np.float64).ravel()[:10].reshape(10)
        if not (plausible(pose).all() and plausible(betas).all()):
            raise ValueError("a pose that is no rotation")
    return (x, y), side, pose, betas, _joints(person, "keypoints_2d", 3), _joints(person, "keypoints_3d", 4)


def _joints(person: Mapping[str, Any], name: str, columns: int) -> np.ndarray | None:
    if name not in person:
        return None
    return labelled(hmr2_joints(np.asarray(person[name], np.float64).reshape(HMR2_JOINTS, columns)))


READER = Hmr2Tars
