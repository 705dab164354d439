"""BEDLAM: rendered people with exact SMPL-X bodies, described by the project's own captions (BEDLAM-Script).

Layout: `training_labels/all_npz_12_training/FOLDER.npz` (one row per person and image) and
`training_images/FOLDER/png/seq_XXXXXX/seq_XXXXXX_YYYY.png`. Folders that are absent are no error: half a dozen are not
part of the public download. Body rotations of SMPL-X joints 0..21 are SMPL's; hands are not labelled, betas are of
another shape space and stay unknown. The body in the camera is moved by `trans_cam + cam_ext[:3, 3]`.

Close-up scenes are stored landscape but labelled portrait: a picture is turned clockwise iff it is landscape while
the principal point is that of a portrait (folder names do not tell). Who is described follows BEDLAM-Script
(naver/poseembroider): enough joints inside the picture, large enough, not hidden behind a nearer person.
Sources: pixelite1201/BEDLAM data_processing/ReadMe.md and df_full_body.py, train/dataset/dataset.py.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import semantic_frame
from pose_rft.body.joints import SMPL24, SMPLX127
from pose_rft.body.smpl import load_body_model
from pose_rft.captions import describe_pose
from pose_rft.errors import PoseRftError
from pose_rft.params import Fraction, NonNegative, Section
from pose_rft.record import Box, Camera, Caption, Defect, Keypoints, Record, Smpl
from pose_rft.releases.base import Unit, check_split, existing_files, require, sample_key
from pose_rft.releases.pictures import UnreadablePicture, load_picture, rotated_clockwise
from pose_rft.seeds import derive, numpy_rng

BODY_JOINTS = 22
PX_PER_SCALE = 200.0
COLUMNS = (
    "imgname",
    "center",
    "scale",
    "pose_cam",
    "shape",
    "trans_cam",
    "gtkps",
    "cam_int",
    "cam_ext",
    "sub",
)
# BEDLAM's validation scenes (its train/core/config.py and validation download).
VALIDATION = (
    "20221019_3-8_250_highbmihand_orbit_stadium_6fps",
    "20221018_3_250_batch01hand_orbit_archVizUI3_time15_6fps",
    "20221018_1_250_batch01hand_zoom_suburb_b_6fps",
    "20221018_3-8_250_batch01hand_6fps",
)
CAPTION_SEED = 0  # wording of the captions belongs to the release: another data seed does not rewrite them


class BedlamParams(Section):
    """`datasets.bedlam` in params.yaml."""

    root: str = "bedlam"
    labels: str = "training_labels/all_npz_12_training"
    images: str = "training_images"
    splits: tuple[Literal["train", "val"], ...] = ("train", "val")
    val_folders: tuple[str, ...] = VALIDATION
    captions: int = Field(default=3, ge=0)
    joints_inside: int = Field(default=16, ge=0, le=BODY_JOINTS)  # of the 22 body joints
    smallest_box: NonNegative = 224.0  # px, longer side of the joints' box x1.1
    largest_overlap: Fraction = 0.3  # share of the box that a nearer person's box may cover
    keep_one_in: int = Field(default=1, ge=1)  # of the people left, chosen by hash of their key
    max_defect_rate: Fraction = 0.01


class Bedlam:
    """Reader of BEDLAM; a unit is one image with all its people."""

    Params = BedlamParams
    dataset = "bedlam"
    licence = "BEDLAM: non-commercial research, see bedlam.is.tue.mpg.de/license.html"
    where_to_get = "https://bedlam.is.tue.mpg.de (training images and all_npz_12_training)"
    published_counts: Mapping[str, Mapping[str, int]] = {"train": {"folders": 26}}

    def __init__(self, root: Path, params: BedlamParams, body_model: Path, jpeg_quality: int) -> None:
        self.root = root / params.root
        self.params = params
        self.body_model = body_model

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "val"), self.dataset)
        units = []
        for path in self._label_files(split):
            images: dict[str, list[int]] = defaultdict(list)
            rows = read_rows(path)
            for row, name in enumerate(rows["imgname"]):
                images[str(name)].append(row)
            for name, numbers in images.items():
                key = sample_key(path.stem, Path(name).stem)
                if kept := [row for row in self._described(rows, numbers) if self._drawn(key, row, numbers)]:
                    persons = tuple((row, numbers.index(row)) for row in kept)
                    units.append(Unit(key, len(kept), (path.stem, name, persons)))
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        folder, name, persons = unit.payload
        rows = read_rows(self.root / self.params.labels / f"{folder}.npz")
        provenance = [("smpl", "BEDLAM pose_cam, joints 0..21; moved by trans_cam + cam_ext")]
        try:
            picture = load_picture(self.root / self.params.images / folder / "png" / name)
            K = rows["cam_int"][persons[0][0]]
            if picture.width > picture.height and K[0, 2] < K[1, 2]:
                picture = rotated_clockwise(picture)
                provenance.append(("image", "turned clockwise: labelled in portrait (close-up)"))
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, str(row)) for row, _ in persons)
            return
        for row, person in persons:
            key = sample_key("bedlam", folder, Path(name).stem, f"p{person}")
            try:
                smpl, notes = self._smpl(rows, row)
                captions = self._captions(key, smpl)
                joints2d = _keypoints(rows["gtkps"][row])
            except PoseRftError as error:
                yield Defect(unit.key, str(row), "broken row", f"{folder}.npz row {row}: {error}")
                continue
            x, y = (float(value) for value in rows["center"][row])
            yield Record(
                key=key,
                dataset=self.dataset,
                split=split,
                image=picture,
                subject=str(rows["sub"][row]),
                sequence=sample_key(folder, Path(name).parts[0]),
                frame=int(Path(name).stem.rsplit("_", 1)[1]),
                box=Box((x, y), float(rows["scale"][row]) * PX_PER_SCALE, "BEDLAM center and scale (joints2d x1.2)"),
                smpl=smpl,
                joints2d=joints2d,
                camera=Camera(K=rows["cam_int"][row], R=rows["cam_ext"][row][:3, :3], t=rows["cam_ext"][row][:3, 3]),
                captions=captions,
                flags=tuple(flag for flag, _ in notes),
                provenance=(*provenance, *notes),
            )

    def inventory(self) -> list[Path]:
        return existing_files(self.root, [f"{self.params.labels}/*.npz", f"{self.params.images}/*/png/*/*.png"])

    def _label_files(self, split: str) -> list[Path]:
        labels = require(self.root / self.params.labels, self.dataset, self.where_to_get)
        files = [
            path for path in sorted(labels.glob("*.npz")) if (path.stem in self.params.val_folders) == (split == "val")
        ]
        if not files:
            raise PoseRftError(
                f"bedlam: {labels} has no label file of the split {split}; see `val_folders` in params.yaml."
            )
        return files

    def _described(self, rows: Mapping[str, np.ndarray], numbers: list[int]) -> Iterator[int]:
        """The rows of one image whose person is seen well enough."""
        # The picture is as large as the principal point tells: BEDLAM's lies in the middle.
        width, height = 2 * rows["cam_int"][numbers[0]][:2, 2]
        depths = {row: float(rows["trans_cam"][row, 2] + rows["cam_ext"][row][2, 3]) for row in numbers}
        boxes = {row: _joint_box(rows["gtkps"][row]) for row in numbers}
        for row in numbers:
            points = rows["gtkps"][row, :BODY_JOINTS, :2]
            inside = ((points >= 0) & (points < (width, height))).all(1).sum()
            side = 1.1 * max(boxes[row][2:] - boxes[row][:2])
            nearer = (_covered(boxes[row], boxes[other]) for other in numbers if depths[other] < depths[row])
            if (
                inside >= self.params.joints_inside
                and side >= self.params.smallest_box
                and max(nearer, default=0.0) <= self.params.largest_overlap
            ):
                yield row

    def _drawn(self, key: str, row: int, numbers: list[int]) -> bool:
        return derive(CAPTION_SEED, "bedlam", key, numbers.index(row)) % self.params.keep_one_in == 0

    def _smpl(self, rows: Mapping[str, np.ndarray], row: int) -> tuple[Smpl, list[tuple[str, str]]]:
        """The body, and what about it is unknown as (flag, note)."""
        pose = np.asarray(rows["pose_cam"][row], np.float64)
        is_smpl = pose.size == 72  # the SMPL version of the labels, else the 165 of SMPL-X
        body = np.zeros((24, 3))
        body[:BODY_JOINTS] = pose[: 3 * BODY_JOINTS].reshape(BODY_JOINTS, 3)
        notes = []
        if not is_smpl:
            notes = [
                ("betas_unknown", "SMPL-X shape does not carry over to SMPL; 0"),
                ("transl_smplx", "rest pelvis of SMPL-X, which differs from SMPL's by centimetres"),
            ]
        smpl = Smpl(
            global_orient=body[0],
            body_pose=body[1:],
            betas=np.asarray(rows["shape"][row])[:10] if is_smpl else np.zeros(10),
            transl=np.asarray(rows["trans_cam"][row]) + rows["cam_ext"][row][:3, 3],
            valid=np.arange(24) < BODY_JOINTS,
            gender="neutral",  # BEDLAM #55: `gender` is the subject's, the parameters are the neutral model's
            body_model="smpl" if is_smpl else "smplx",
            frame="camera",
            source="bedlam",
        )
        return smpl, notes

    def _captions(self, key: str, smpl: Smpl) -> tuple[Caption, ...]:
        if self.params.captions == 0:
            return ()
        vectors = np.concatenate([smpl.global_orient[None], smpl.body_pose]).astype(np.float64)
        rotations = semantic_frame(torch.from_numpy(Rotation.from_rotvec(vectors).as_matrix()), "camera").numpy()
        rng = numpy_rng(CAPTION_SEED, "bedlam captions", key)
        texts = describe_pose(rotations, _rest_joints(self.body_model), rng, self.params.captions)
        return tuple(Caption(text, "automatic") for text in texts)


@lru_cache(maxsize=2)  # units come sorted by folder, so a worker reads each label file about once
def read_rows(path: Path) -> dict[str, np.ndarray]:
    """The columns of one label file that a sample needs, one row per person.

    Raises:
        PoseRftError: not an npz, a column is missing, or columns of different length.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            rows: dict[str, Any] = {name: content[name] for name in COLUMNS if name in content}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise PoseRftError(f"{path} is not a readable BEDLAM label file ({error}); download it again.") from None
    if missing := [name for name in COLUMNS if name not in rows]:
        raise PoseRftError(f"{path} lacks {', '.join(missing)}; expected the columns of all_npz_12_training.")
    if len({len(column) for column in rows.values()}) != 1:
        raise PoseRftError(f"{path} has columns of different length; download it again.")
    return rows


@lru_cache(maxsize=1)
def _rest_joints(folder: Path) -> np.ndarray:
    return load_body_model(folder).rest_joints().detach()[0].numpy()


def _keypoints(points: np.ndarray) -> Keypoints:
    """All 127 of the SMPL-X labels, or the first 24 of the SMPL ones (SMPL's own joints)."""
    joint_set = SMPLX127 if len(points) >= len(SMPLX127) else SMPL24
    points = np.array(points[: len(joint_set)], np.float32)
    points[:, 2] = np.clip(points[:, 2], 0, 1)
    return Keypoints(points, joint_set.name)


def _joint_box(points: np.ndarray) -> np.ndarray:
    """(x0, y0, x1, y1) px around the body joints."""
    body = points[:BODY_JOINTS, :2]
    return np.concatenate([body.min(0), body.max(0)])


def _covered(box: np.ndarray, other: np.ndarray) -> float:
    """Share of `box` that `other` covers."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    area = float(np.prod(box[2:] - box[:2]))
    return float(np.prod(np.clip(sides, 0, None))) / max(area, 1e-9)
