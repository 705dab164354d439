"""3DPW: images with Python 2 pickles of gendered SMPL in the world frame.

Image i belongs to pose i (30 Hz), not to `img_frame_ids[i]`. A person is a sample in every frame with a valid camera
pose and at least one detected 2D joint. In other frames the release's `poses2d` are all zero; the official challenge
and SPIN exclude them from the test set, so they do not count as defects. Evaluation needs the male and the female
model. Layout and pitfalls: docs/formats.md, 3DPW.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pose_rft.body.joints import OPENPOSE18, SMPL24
from pose_rft.body.model_file import Gender
from pose_rft.datasets.common.base import Reader, Unit, box_around, check_split, existing_files, require, sample_key
from pose_rft.datasets.common.labels import plausible
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture
from pose_rft.datasets.fits.sources import NOT_FINITE, BrokenFit, smpl_in_camera
from pose_rft.errors import PoseRftError
from pose_rft.io.find import find
from pose_rft.io.paths import inside
from pose_rft.io.unpickle import read_pickle
from pose_rft.params import Fraction, Section
from pose_rft.record import Camera, Defect, Keypoints, Record, Smpl

# Split → folder names: the official name first, then the name in other copies.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
}
BOX_SCALE = 1.2  # SPIN, around the detected 2D joints
GENDERS: Mapping[str, Gender] = {"m": "male", "f": "female", "male": "male", "female": "female"}
SOURCE = "3dpw"


class Pw3dParams(Section):
    """`datasets.3dpw` in params.yaml."""

    root: str = "3dpw"
    splits: tuple[Literal["train", "validation", "test"], ...] = ("test",)
    max_defect_rate: Fraction = 0.01


@dataclass(frozen=True, eq=False)
class Track:
    """One person of a sequence: N frames, world frame, metres.

    pose (N, 24, 3) axis-angle, betas (10,), transl (N, 3), joints3d (N, 24, 3), joints2d (N, 18, 3) px + confidence,
    frames: the frames that are samples.
    """

    gender: Gender
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    joints3d: np.ndarray
    joints2d: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True, eq=False)
class Sequence:
    """A sequence: K (3, 3) px, cameras (N, 4, 4) world → camera, and one track per person."""

    name: str
    K: np.ndarray
    cameras: np.ndarray
    tracks: tuple[Track, ...]


class Pw3d(Reader):
    """Reader of 3DPW; a unit is one sequence with all its people."""

    Params = Pw3dParams
    params: Pw3dParams
    dataset = "3dpw"
    licence = "3DPW licence: non-commercial research, no redistribution"
    where_to_get = "https://virtualhumans.mpi-inf.mpg.de/3DPW"

    def units(self, split: str) -> list[Unit]:
        folder = self._folder(split)
        paths = find(folder, "*.pkl")
        if not paths:
            raise PoseRftError(f"{folder} holds no .pkl sequences; get 3DPW from {self.where_to_get}.")
        units = []
        for path in paths:
            expected = sum(len(track.frames) for track in read_sequence(path).tracks)
            if expected:
                units.append(Unit(sample_key("3dpw", path.stem), expected, (path.name,)))
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        (name,) = unit.payload
        sequence = read_sequence(self._folder(split) / name)
        R, t = sequence.cameras[:, :3, :3], sequence.cameras[:, :3, 3]
        smpls = [self._smpls(track, R, t) for track in sequence.tracks]
        for frame in sorted({int(frame) for track in sequence.tracks for frame in track.frames}):
            present = [person for person, smpl in enumerate(smpls) if frame in smpl]
            try:
                picture = load_picture(inside(self.root / "imageFiles", sequence.name) / f"image_{frame:05d}.jpg")
            except UnreadablePicture as problem:
                yield from (problem.defect(unit.key, f"{frame} person {person}") for person in present)
                continue
            camera = Camera(sequence.K, R[frame], t[frame])
            for person in present:
                track, smpl = sequence.tracks[person], smpls[person][frame]
                joints2d, joints3d = track.joints2d[frame], _in_camera(track.joints3d[frame], camera)
                if isinstance(smpl, Smpl) and not (plausible(joints2d).all() and plausible(joints3d).all()):
                    smpl = BrokenFit(f"joints: {NOT_FINITE}")
                if isinstance(smpl, BrokenFit):
                    where = f"{name}, person {person}, frame {frame}"
                    yield Defect(unit.key, f"{frame} person {person}", "broken fit", f"{where}: {smpl.problem}")
                    continue
                yield Record(
                    key=f"{unit.key}_{person}_{frame:06d}",
                    dataset=self.dataset,
                    split=split,
                    image=picture,
                    subject=f"{sequence.name}-{person}",
                    sequence=sequence.name,
                    frame=frame,
                    box=box_around(joints2d[joints2d[:, 2] > 0, :2], BOX_SCALE, f"poses2d x{BOX_SCALE}"),
                    smpl=smpl,
                    joints3d=Keypoints(joints3d, SMPL24.name),
                    joints2d=Keypoints(joints2d, OPENPOSE18.name),
                    camera=camera,
                    provenance=(
                        ("smpl", "poses and trans, world to camera frame"),
                        ("joints3d", "jointPositions, world to camera frame"),
                        ("joints2d", "poses2d, OpenPose detections"),
                        ("camera", "cam_poses, cam_intrinsics"),
                    ),
                )

    def inventory(self) -> list[Path]:
        patterns = [f"sequenceFiles/{folder}/*.pkl" for split in self.params.splits for folder in FOLDERS[split]]
        # A sequence names its image folder inside the pickle, so the file name does not tell: list all images.
        return existing_files(self.root, [*patterns, "imageFiles/*/*.jpg"])

    def _folder(self, split: str) -> Path:
        check_split(split, FOLDERS, self.dataset)
        folders = [self.root / "sequenceFiles" / name for name in FOLDERS[split]]
        found = next((folder for folder in folders if folder.is_dir()), folders[0])
        return require(found, self.dataset, self.where_to_get)

    def _smpls(self, track: Track, R: np.ndarray, t: np.ndarray) -> dict[int, Smpl | BrokenFit]:
        rows = track.frames
        betas = np.broadcast_to(track.betas, (len(rows), 10))
        smpls = smpl_in_camera(
            track.pose[rows], betas, track.transl[rows], R[rows], t[rows], self.body_model, SOURCE, track.gender
        )
        return dict(zip(rows.tolist(), smpls, strict=True))


def read_sequence(path: Path) -> Sequence:
    """Reads one .pkl of `sequenceFiles`.

    Raises:
        PoseRftError: the pickle is unreadable or refers to code, or a field is missing or has the wrong shape.
    """
    content = read_pickle(path)
    try:
        cameras = np.asarray(content["cam_poses"], np.float64).reshape(-1, 4, 4)
        K = np.asarray(content["cam_intrinsics"], np.float64).reshape(3, 3)
        tracks = tuple(_track(content, person, len(cameras)) for person in range(len(content["poses"])))
        return Sequence(str(content["sequence"]), K, cameras, tracks)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PoseRftError(
            f"{path} is not a sequence of 3DPW ({type(error).__name__}: {' '.join(str(error).split())[:120]}); "
            "download it again."
        ) from None


def _track(content: Mapping[str, Any], person: int, length: int) -> Track:
    def field(name: str, *shape: int) -> np.ndarray:
        return np.asarray(content[name][person], np.float64).reshape(length, *shape)

    # (N, 3, 18) in the files: x, y, confidence of each joint.
    joints2d = field("poses2d", 3, 18).swapaxes(1, 2)
    valid = field("campose_valid") == 1
    found = (joints2d[:, :, 2] > 0).any(axis=1)
    return Track(
        gender=GENDERS[str(content["genders"][person]).lower()],
        pose=field("poses", 24, 3),
        betas=np.asarray(content["betas"][person], np.float64).ravel()[:10].reshape(10),
        transl=field("trans", 3),
        joints3d=field("jointPositions", 24, 3),
        joints2d=joints2d,
        frames=np.flatnonzero(valid & found),
    )


def _in_camera(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Transforms joints (24, 3) from the world to the camera frame and appends confidence 1."""
    assert camera.R is not None and camera.t is not None
    return np.concatenate([points @ camera.R.T + camera.t, np.ones((len(points), 1))], axis=1)


READER = Pw3d
