"""BEDLAM: rendered people with exact SMPL-X bodies; this project generates the captions (`script.py`).

Layout: `training_labels/all_npz_12_training/FOLDER.npz` (one row per person and image) and
`training_images/FOLDER/png/seq_XXXXXX/seq_XXXXXX_YYYY.png`. Body rotations of SMPL-X joints 0..21 are SMPL's; hands are
not labelled, and SMPL-X betas, which belong to another shape space, are left unknown. The body's translation in the
camera frame is `trans_cam + cam_ext[:3, 3]`. A few scenes have labels but no images in the public download: each of
them becomes one row of the defects table.

Close-up scenes are stored landscape but labelled portrait: an image is rotated clockwise iff it is landscape while
the principal point is that of a portrait image (folder names do not tell).
Sources: pixelite1201/BEDLAM data_processing/ReadMe.md and df_full_body.py, train/core/config.py, train/dataset.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from pose_rft.datasets.bedlam.labels import IMAGE_NAME, LabelFile, body_pose, frame_of, keypoints_of, read_rows, smpl_of
from pose_rft.datasets.bedlam.script import BODY_JOINTS, captions_of, distinct_poses, well_seen
from pose_rft.datasets.common.base import Reader, Unit, check_split, existing_files, require, sample_key
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture, rotated_clockwise
from pose_rft.errors import PoseRftError
from pose_rft.io.find import find
from pose_rft.params import Count, Fraction, NonNegative, Section
from pose_rft.record import Box, Camera, Caption, Defect, Record

PX_PER_SCALE = 200.0
# BEDLAM's validation scenes (BEDLAM's train/core/config.py and validation download).
VALIDATION = (
    "20221019_3-8_250_highbmihand_orbit_stadium_6fps",
    "20221018_3_250_batch01hand_orbit_archVizUI3_time15_6fps",
    "20221018_1_250_batch01hand_zoom_suburb_b_6fps",
    "20221018_3-8_250_batch01hand_6fps",
)
# Scenes with labels but without training images (BEDLAM's fetch_training_data.sh); four are in VALIDATION.
NOT_PUBLIC = (
    "20221017_1_250_batch01hand_closeup_suburb_a_6fps",
    "20221018_1_250_batch01hand_zoom_suburb_b_6fps",
    "20221018_3-8_250_batch01hand_6fps",
    "20221018_3_250_batch01hand_orbit_archVizUI3_time15_6fps",
    "20221019_3-8_250_highbmihand_orbit_stadium_6fps",
    "20221019_3-8_250_highbmihand_static_stadium_6fps",
)
SCENE = re.compile(r"\d{8}[_-].+")  # the label folder also holds labels of AGORA, another data set
CAPTIONED_TOGETHER = 64  # images; captioning is vectorised


class Someone(NamedTuple):
    """A person to caption: row of the label file, image name, index of the person in the image."""

    row: int
    image: str
    number: int

    def key(self, folder: str) -> str:
        """Returns the sample's key, from folder, image and person."""
        return sample_key("bedlam", folder, Path(self.image).stem, f"p{self.number}")


class BedlamParams(Section):
    """`datasets.bedlam` in params.yaml."""

    root: str = "bedlam"
    labels: str = "training_labels/all_npz_12_training"
    images: str = "training_images"
    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    val_folders: tuple[str, ...] = VALIDATION
    captions: int = Field(default=3, ge=0)
    joints_inside: int = Field(default=16, ge=0, le=BODY_JOINTS)  # fewest of the 22 body joints inside the image
    smallest_box: NonNegative = 224.0  # px, longer side of the box around the joints x1.1
    largest_overlap: Fraction = 0.3  # share of the box that a nearer person's box may cover
    poses: Mapping[Literal["train", "val"], Count] = {}  # how many people to keep, those with the most different poses
    max_defect_rate: Fraction = 0.01


class Bedlam(Reader):
    """Reader of BEDLAM; a unit is one image with all its people."""

    Params = BedlamParams
    params: BedlamParams
    dataset = "bedlam"
    licence = "BEDLAM: non-commercial research, see bedlam.is.tue.mpg.de/license.html"
    where_to_get = "https://bedlam.is.tue.mpg.de (training images and all_npz_12_training)"

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "val"), self.dataset)
        units: list[Unit] = []
        chosen: list[tuple[Path, list[Someone]]] = []
        for path in self._label_files(split):
            if not SCENE.fullmatch(path.stem):
                units.append(_left_out(path, "labels of another data set"))
            elif self._pictures(path.stem).is_dir():
                chosen.append((path, self._well_seen(path)))
            elif path.stem in NOT_PUBLIC:
                units.append(_left_out(path, "scene without public pictures"))
            else:
                raise PoseRftError(
                    f"bedlam: {path.name} has no pictures; unpack bedlam_images_train/{path.stem}.tar to "
                    f"{self._pictures(path.stem)}, or take the label file away."
                )
        if not chosen:
            raise PoseRftError(
                f"bedlam: there are no pictures of the split {split} in {self.root / self.params.images}; get them "
                f"from {self.where_to_get}, or take {split} out of `datasets.bedlam.splits`."
            )
        for name, count in self.params.poses.items():
            if name == split:
                chosen = self._most_different(chosen, count)
        for path, people in chosen:
            units += _units(path.stem, people)
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        if len(unit.payload) == 1:
            yield from unit.payload
            return
        folder, name, persons, captioned = unit.payload
        file = LabelFile.at(self.root / self.params.labels / f"{folder}.npz")
        rows = read_rows(file)
        provenance = [("smpl", "BEDLAM pose_cam, joints 0..21; moved by trans_cam + cam_ext")]
        try:
            picture = load_picture(self._pictures(folder) / name)
            K = rows["cam_int"][persons[0].row]
            if picture.width > picture.height and K[0, 2] < K[1, 2]:
                picture = rotated_clockwise(picture)
                provenance.append(("image", "turned clockwise: labelled in portrait (close-up)"))
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, str(person.row)) for person in persons)
            return
        captions = _captions(file, captioned, self.body_model, self.params.captions)
        for person in persons:
            row = person.row
            try:
                smpl, notes = smpl_of(rows, row)
                joints2d = keypoints_of(rows["gtkps"][row])
                if not rows["finite"][row]:
                    raise PoseRftError("center, scale or camera holds a number that is not finite")
            except PoseRftError as error:
                yield Defect(unit.key, str(row), "broken row", f"{folder}.npz row {row}: {error}")
                continue
            x, y = (float(value) for value in rows["center"][row])
            yield Record(
                key=person.key(folder),
                dataset=self.dataset,
                split=split,
                image=picture,
                subject=str(rows["sub"][row]),
                sequence=sample_key(folder, Path(name).parts[0]),
                frame=frame_of(name),
                box=Box((x, y), float(rows["scale"][row]) * PX_PER_SCALE, "BEDLAM center and scale (joints2d x1.2)"),
                smpl=smpl,
                joints2d=joints2d,
                camera=Camera(K=rows["cam_int"][row], R=rows["cam_ext"][row][:3, :3], t=rows["cam_ext"][row][:3, 3]),
                captions=captions[row],
                flags=tuple(flag for flag, _ in notes),
                provenance=(*provenance, *notes),
            )

    def inventory(self) -> list[Path]:
        return existing_files(self.root, [f"{self.params.labels}/*.npz", f"{self.params.images}/*/png/*/*.png"])

    def _label_files(self, split: str) -> list[Path]:
        labels = require(self.root / self.params.labels, self.dataset, self.where_to_get)
        files = [path for path in find(labels, "*.npz") if (path.stem in self.params.val_folders) == (split == "val")]
        if not files:
            raise PoseRftError(
                f"bedlam: {labels} has no label file of the split {split}; see `val_folders` in params.yaml."
            )
        return files

    def _pictures(self, folder: str) -> Path:
        """Returns the scene's folder `png`; one label file has `3_10` in its name where the folder has `3-10`."""
        path = self.root / self.params.images / folder / "png"
        other = self.root / self.params.images / folder.replace("_3_10_", "_3-10_", 1) / "png"
        return path if path.is_dir() else other

    def _well_seen(self, path: Path) -> list[Someone]:
        """Returns the people of a label file that are visible enough, in file order.

        People with non-finite numbers are kept; they become defects when read.
        """
        rows = read_rows(LabelFile.at(path))
        images: dict[str, int] = {}
        numbers: dict[str, int] = defaultdict(int)
        everybody, image_of = [], []
        for row, name in enumerate(rows["imgname"].tolist()):
            if not IMAGE_NAME.fullmatch(name):
                raise PoseRftError(
                    f"{path}, row {row}: {name!r} is no picture such as seq_000000/seq_000000_0000.png; "
                    "download the labels again."
                )
            everybody.append(Someone(row, name, numbers[name]))
            numbers[name] += 1
            image_of.append(images.setdefault(name, len(images)))
        params = self.params
        seen = well_seen(
            rows["gtkps"][:, :BODY_JOINTS, :2],
            2 * rows["cam_int"][:, :2, 2],  # the principal point is the image centre
            rows["trans_cam"][:, 2] + rows["cam_ext"][:, 2, 3],
            np.array(image_of),
            params.joints_inside,
            params.smallest_box,
            params.largest_overlap,
        )
        return [everybody[row] for row in np.flatnonzero(seen | ~rows["finite"])]

    def _most_different(
        self, chosen: Sequence[tuple[Path, list[Someone]]], count: int
    ) -> list[tuple[Path, list[Someone]]]:
        """Keeps up to `count` people of the split whose poses differ most, and everyone whose row is broken."""
        poses, sound = [], []
        for path, people in chosen:
            numbers = [person.row for person in people]
            rows = read_rows(LabelFile.at(path))
            finite = rows["finite"][numbers]
            poses.append(body_pose(rows)[numbers][finite])
            sound.append(finite)
        kept = ~np.concatenate(sound)
        if not kept.all():
            everybody = np.flatnonzero(~kept)
            kept[everybody[distinct_poses(np.concatenate(poses), self.body_model, count)]] = True
        parts = np.split(kept, np.cumsum([len(people) for _, people in chosen])[:-1])
        return [
            (path, [person for person, keep in zip(people, part, strict=True) if keep])
            for (path, people), part in zip(chosen, parts, strict=True)
        ]


def _left_out(path: Path, reason: str) -> Unit:
    """Returns a unit with one defect for a label file that is not read, so that the report counts it."""
    key = sample_key(path.stem)
    return Unit(key, 1, (Defect(key, "", reason, path.name),))


def _units(folder: str, people: Sequence[Someone]) -> Iterator[Unit]:
    """Yields a unit per image of a scene; neighbouring images share a list of people that are captioned together."""
    by_image: dict[str, list[Someone]] = defaultdict(list)
    for person in people:
        by_image[person.image].append(person)
    images = sorted(by_image)
    for start in range(0, len(images), CAPTIONED_TOGETHER):
        part = images[start : start + CAPTIONED_TOGETHER]
        captioned = tuple(person for name in part for person in by_image[name])
        for name in part:
            payload = (folder, name, tuple(by_image[name]), captioned)
            yield Unit(sample_key(folder, Path(name).stem), len(by_image[name]), payload)


@lru_cache(maxsize=2)
def _captions(
    file: LabelFile, people: tuple[Someone, ...], body_model: Path, number: int
) -> Mapping[int, tuple[Caption, ...]]:
    """Returns captions of these people by row; a broken row has none."""
    rows = read_rows(file)
    numbers = [person.row for person in people]
    sound = [person for person, finite in zip(people, rows["finite"][numbers], strict=True) if finite]
    if number == 0 or not sound:
        return dict.fromkeys(numbers, ())
    poses = body_pose(rows)[[person.row for person in sound]]
    keys = [person.key(file.path.stem) for person in sound]
    captions = captions_of(poses, keys, body_model, number)
    return {person.row: captions[key] for person, key in zip(sound, keys, strict=True)}


READER = Bedlam
