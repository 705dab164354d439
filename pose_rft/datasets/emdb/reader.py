"""EMDB: frames of handheld videos, with pickles of gendered SMPL in the world frame, from body-worn sensors.

The split `test` is EMDB 1, the benchmark for single-image methods: the sequences whose `emdb1` is set, in the frames
that `good_frames_mask` marks; in other frames the person is out of view or hidden. The ground truth is the 24 SMPL
joints for the person's gender (`pose_rft.evaluation.joint_readers`). Layout: docs/formats.md, EMDB.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pose_rft.body.joints import SMPL24
from pose_rft.body.model_file import Gender
from pose_rft.datasets.common.base import (
    Reader,
    Unit,
    box_around,
    check_split,
    existing_files,
    require,
    sample_key,
    square_box,
    with_confidence,
)
from pose_rft.datasets.common.labels import GENDERS, plausible
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture
from pose_rft.datasets.fits.sources import NOT_FINITE, BrokenFit, smpl_in_camera
from pose_rft.errors import PoseRftError
from pose_rft.io.find import find
from pose_rft.io.unpickle import read_pickle
from pose_rft.params import Fraction, Section
from pose_rft.record import Box, Camera, Defect, Keypoints, Record, Smpl

SEQUENCES = "P*/*/*_data.pkl"
PROTOCOLS: Mapping[str, str] = {"test": "emdb1"}  # split → the field that marks its sequences
JOINTS_SCALE = 1.2  # around the projected joints, where the release's box is empty
SOURCE = "emdb"


class EmdbParams(Section):
    """`datasets.emdb` in params.yaml."""

    root: str = "emdb"
    splits: tuple[Literal["test"], ...] = ("test",)
    max_defect_rate: Fraction = 0.01


@dataclass(frozen=True, eq=False)
class Sequence:
    """One person's N frames, world frame, metres.

    pose (N, 24, 3) axis-angle, betas (10,), transl (N, 3), joints2d (N, 24, 2) px, boxes (N, 4) px as x0, y0, x1, y1,
    K (3, 3) px, cameras (N, 4, 4) world → camera, frames: the frames that are samples; splits: its splits.
    """

    name: str
    gender: Gender
    splits: frozenset[str]
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    joints2d: np.ndarray
    boxes: np.ndarray
    K: np.ndarray
    cameras: np.ndarray
    frames: np.ndarray


class Emdb(Reader):
    """Reader of EMDB; a unit is one sequence."""

    Params = EmdbParams
    params: EmdbParams
    dataset = "emdb"
    licence = "EMDB licence: non-commercial research, no redistribution"
    where_to_get = "https://emdb.ait.ethz.ch"

    def units(self, split: str) -> list[Unit]:
        check_split(split, PROTOCOLS, self.dataset)
        paths = find(require(self.root, self.dataset, self.where_to_get), SEQUENCES)
        if not paths:
            raise PoseRftError(f"{self.root} holds no {SEQUENCES}; get EMDB from {self.where_to_get}.")
        units = []
        for path in paths:
            sequence = read_sequence(path)
            if split in sequence.splits and len(sequence.frames):
                place = path.relative_to(self.root).as_posix()
                units.append(Unit(sample_key(*path.parts[-3:-1]), len(sequence.frames), (place,)))
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        (place,) = unit.payload
        path = self.root / place
        sequence = read_sequence(path)
        R, t = sequence.cameras[:, :3, :3], sequence.cameras[:, :3, 3]
        smpls = self._smpls(sequence, R, t)
        for frame in sequence.frames.tolist():
            try:
                picture = load_picture(path.parent / "images" / f"{frame:05d}.jpg")
            except UnreadablePicture as problem:
                yield problem.defect(unit.key, str(frame))
                continue
            smpl, joints2d = smpls[frame], with_confidence(sequence.joints2d[frame])
            if isinstance(smpl, Smpl) and not plausible(joints2d).all():
                smpl = BrokenFit(f"kp2d: {NOT_FINITE}")
            if isinstance(smpl, BrokenFit):
                yield Defect(unit.key, str(frame), "broken fit", f"{place}, frame {frame}: {smpl.problem}")
                continue
            yield Record(
                key=f"{unit.key}_{frame:06d}",
                dataset=self.dataset,
                split=split,
                image=picture,
                subject=path.parts[-3],
                sequence=sequence.name,
                frame=frame,
                box=_box(sequence.boxes[frame], joints2d),
                smpl=smpl,
                joints2d=Keypoints(joints2d, SMPL24.name),
                camera=Camera(sequence.K, R[frame], t[frame]),
                provenance=(
                    ("smpl", "poses_root, poses_body and trans, world to camera frame"),
                    ("joints2d", "kp2d, projected SMPL joints"),
                    ("camera", "extrinsics, intrinsics"),
                ),
            )

    def inventory(self) -> list[Path]:
        return existing_files(self.root, [SEQUENCES, "P*/*/images/*.jpg"])

    def _smpls(self, sequence: Sequence, R: np.ndarray, t: np.ndarray) -> dict[int, Smpl | BrokenFit]:
        rows = sequence.frames
        betas = np.broadcast_to(sequence.betas, (len(rows), 10))
        pose, transl = sequence.pose[rows], sequence.transl[rows]
        smpls = smpl_in_camera(pose, betas, transl, R[rows], t[rows], self.body_model, SOURCE, sequence.gender)
        return dict(zip(rows.tolist(), smpls, strict=True))


def _box(corners: np.ndarray, joints2d: np.ndarray) -> Box:
    """Returns the release's box, or a box around the projected joints if it is empty (`bboxes.invalid_idxs`)."""
    x0, y0, x1, y1 = corners.tolist()
    if x1 > x0 and y1 > y0:
        return square_box(x0, y0, x1, y1, 1.0, "bboxes")
    return box_around(joints2d[:, :2], JOINTS_SCALE, f"kp2d x{JOINTS_SCALE}")


def read_sequence(path: Path) -> Sequence:
    """Reads one `*_data.pkl`.

    Raises:
        PoseRftError: the pickle is unreadable or refers to code, or a field is missing or has the wrong shape.
    """
    content = read_pickle(path)
    try:
        return _sequence(content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is not a sequence of EMDB ({type(error).__name__}: {' '.join(str(error).split())[:120]}); "
            "unpack it again."
        ) from None


def _sequence(content: Mapping[str, Any]) -> Sequence:
    length = int(content["n_frames"])

    def field(group: Any, name: str, *shape: int) -> np.ndarray:
        return np.asarray(group[name], np.float64).reshape(shape)

    smpl, camera = content["smpl"], content["camera"]
    root, body = field(smpl, "poses_root", length, 1, 3), field(smpl, "poses_body", length, 23, 3)
    return Sequence(
        name=str(content["name"]),
        gender=GENDERS[str(content["gender"]).lower()],
        splits=frozenset(split for split, mark in PROTOCOLS.items() if bool(content[mark])),
        pose=np.concatenate([root, body], axis=1),
        betas=field(smpl, "betas", 10),
        transl=field(smpl, "trans", length, 3),
        joints2d=field(content, "kp2d", length, 24, 2),
        boxes=field(content["bboxes"], "bboxes", length, 4),
        K=field(camera, "intrinsics", 3, 3),
        cameras=field(camera, "extrinsics", length, 4, 4),
        frames=np.flatnonzero(np.asarray(content["good_frames_mask"], bool).reshape(length)),
    )


READER = Emdb
