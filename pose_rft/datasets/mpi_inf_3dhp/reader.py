"""MPI-INF-3DHP: AVI videos with MAT v5 annotations (train), images with a v7.3 file (test), published SMPL fits.

Train: subjects S1–S8, two sequences each, the 8 chest-height cameras of 14; every 10th of the frames whose 17 body
joints all lie inside the image. SPIN counts across videos; here each video is counted separately, so the selection does
not depend on earlier videos. Annotations may be longer than the video; `FRAMES` has the true lengths. If a video was
replaced by extracted frames, they are read from any of three common layouts, and their bytes are kept. Test: TS1–TS6,
the frames marked valid. Layout and pitfalls: docs/formats.md, MPI-INF-3DHP.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pose_rft.body.joints import MPI17, MPI28
from pose_rft.datasets.common.base import (
    Incomplete,
    Reader,
    Unit,
    box_around,
    check_split,
    existing_files,
    require,
    sample_key,
    sampled_pictures,
    with_confidence,
)
from pose_rft.datasets.common.labels import plausible
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture
from pose_rft.datasets.fits.sources import NOT_FINITE, BrokenFit, FitSource, fit_files
from pose_rft.datasets.fits.video_fits import NOTES, VideoName, fits_of_video
from pose_rft.datasets.mpi_inf_3dhp.files import (
    CHEST_CAMERAS,
    FRAME_PATTERNS,
    TEST_FOLDER,
    TEST_SIZES,
    extracted_frames,
    of_camera,
    read_annotations,
    read_calibration,
    read_test_annotations,
    valid_frames,
)
from pose_rft.errors import PoseRftError
from pose_rft.io import video
from pose_rft.params import Count, Fraction, Section
from pose_rft.record import Defect, Image, Keypoints, Record

BOX_SCALE = 1.2  # SPIN, around the 17 joints
# The 17 of the 28 joints that the test set also has (SPIN `joints17_idx`).
BODY = MPI28.indices([joint for joint in MPI28.joints if joint in MPI17])
# Frames per video (MMPose preprocess_mpi_inf_3dhp.py, margipose sequence_info.json).
FRAMES: Mapping[tuple[int, int], int] = {
    **{(1, 1): 6416, (1, 2): 12430, (2, 1): 6502, (2, 2): 6081, (3, 1): 12488, (3, 2): 12283, (4, 1): 6171},
    **{(4, 2): 6675, (5, 1): 12820, (5, 2): 12312, (6, 1): 6188, (6, 2): 6145, (7, 1): 6239, (7, 2): 6320},
    **{(8, 1): 6468, (8, 2): 6054},
}


class MpiInf3dhpParams(Section):
    """`datasets.mpi_inf_3dhp` in params.yaml. fits: files below the root; the first that has a frame is used.

    test_joints3d: `annot3` matches the test images; `univ_annot3`, scaled to a common height, is what SPIN evaluates.
    """

    root: str = "mpi_inf_3dhp"
    splits: tuple[Literal["train", "test"], ...] = ("train",)
    every: Count = 10
    fits: tuple[FitSource, ...] = ()
    test_joints3d: Literal["annot3", "univ_annot3"] = "annot3"
    max_defect_rate: Fraction = 0.01


@dataclass(frozen=True)
class VideoUnit:
    """One camera of one training sequence and the frames to take from it."""

    subject: int
    sequence: int
    camera: int
    frames: tuple[int, ...]

    @property
    def folder(self) -> str:
        """The sequence's folder below the release."""
        return f"S{self.subject}/Seq{self.sequence}"

    @property
    def name(self) -> VideoName:
        """The names of this video in fit files."""
        names = (f"S{self.subject}", f"Seq{self.sequence}", str(self.camera))
        return VideoName(self.subject, (self.subject, self.sequence), names)


@dataclass(frozen=True)
class TestUnit:
    """One test sequence and its valid frames (rows of the annotation, 0-based)."""

    name: str
    frames: tuple[int, ...]


class MpiInf3dhp(Reader):
    """Reader of MPI-INF-3DHP; a unit is one training video or one test sequence."""

    Params = MpiInf3dhpParams
    params: MpiInf3dhpParams
    dataset = "mpi_inf_3dhp"
    licence = "MPI-INF-3DHP licence: non-commercial research, no redistribution; NeuralAnnot fits CC BY-NC 4.0"
    where_to_get = "https://vcai.mpi-inf.mpg.de/3dhp-dataset (fits: https://github.com/mks0601/NeuralAnnot_RELEASE)"

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "test"), self.dataset)
        require(self.root, self.dataset, self.where_to_get)
        units = self._train_units() if split == "train" else self._test_units()
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        (wanted,) = unit.payload
        if isinstance(wanted, TestUnit):
            yield from self._read_test(unit, wanted)
            return
        done = 0
        try:
            for row in self._read_video(unit, wanted):
                yield row
                done += 1
        except Incomplete as problem:
            for frame in wanted.frames[done:]:
                yield Defect(unit.key, str(frame), problem.reason, problem.detail)

    def inventory(self) -> list[Path]:
        patterns = []
        if "train" in self.params.splits:
            patterns += [f"S[1-8]/Seq[12]/{name}" for name in ("annot.mat", "camera.calibration")]
            patterns += [f"S[1-8]/Seq[12]/imageSequence/video_{camera}.avi" for camera in CHEST_CAMERAS]
            patterns += FRAME_PATTERNS
        if "test" in self.params.splits:
            patterns += [f"{TEST_FOLDER}/TS[1-6]/annot_data.mat", f"{TEST_FOLDER}/TS[1-6]/imageSequence/*.jpg"]
        fits = fit_files(self.params.fits, self.root) if "train" in self.params.splits else []
        return sorted({*existing_files(self.root, patterns), *fits})

    def _train_units(self) -> Iterator[Unit]:
        folders = sorted(path for path in self.root.glob("S[1-8]/Seq[12]") if path.is_dir())
        if not folders:
            raise PoseRftError(f"{self.root} has no S1/Seq1 … S8/Seq2; get them from {self.where_to_get}.")
        for folder in folders:
            subject, sequence = int(folder.parent.name[1:]), int(folder.name[3:])
            cameras = read_calibration(folder / "camera.calibration")
            points, _ = read_annotations(folder / "annot.mat")
            for camera in CHEST_CAMERAS:
                size = of_camera(cameras, camera, folder).size
                frames = sampled_frames(points[camera][: FRAMES.get((subject, sequence))], size, self.params.every)
                key = sample_key("3dhp", f"S{subject}", f"Seq{sequence}", f"cam{camera}")
                if frames:
                    yield Unit(key, len(frames), (VideoUnit(subject, sequence, camera, frames),))

    def _test_units(self) -> Iterator[Unit]:
        folders = sorted(path for path in (self.root / TEST_FOLDER).glob("TS[1-6]") if path.is_dir())
        if not folders:
            raise PoseRftError(f"{self.root / TEST_FOLDER} has no TS1 … TS6; get them from {self.where_to_get}.")
        for folder in folders:
            if frames := valid_frames(folder / "annot_data.mat"):
                yield Unit(sample_key("3dhp", folder.name), len(frames), (TestUnit(folder.name, frames),))

    def _read_video(self, unit: Unit, wanted: VideoUnit) -> Iterator[Record | Defect]:
        """Yields one row per frame, in order; raises `Incomplete` if the remaining frames cannot be read."""
        folder = self.root / wanted.folder
        calibration = of_camera(read_calibration(folder / "camera.calibration"), wanted.camera, folder)
        camera = calibration.camera
        points2d, points3d = (array[wanted.camera] for array in read_annotations(folder / "annot.mat"))
        fits = fits_of_video(
            self.params.fits,
            self.root,
            wanted.name,
            wanted.frames,
            camera,
            points3d,
            MPI28.name,
            self.body_model,
        )
        pictures = self._pictures(wanted, calibration.size)
        for frame in wanted.frames:
            picture = next(pictures)
            if isinstance(picture, UnreadablePicture):
                yield picture.defect(unit.key, str(frame))
                continue
            fit = fits.get(frame)
            if isinstance(fit, BrokenFit):
                yield fit.defect(unit.key, str(frame))
                continue
            if not (plausible(points2d[frame]).all() and plausible(points3d[frame]).all()):
                yield Defect(unit.key, str(frame), "damaged annotation", f"annot.mat, frame {frame}: {NOT_FINITE}")
                continue
            provenance = [("joints3d", "annot3, mm to m"), ("joints2d", "annot2"), ("camera", "camera.calibration")]
            if fit is not None:
                provenance.append(("smpl", NOTES[fit.source]))
            yield Record(
                key=f"{unit.key}_{frame:06d}",
                dataset=self.dataset,
                split="train",
                image=picture,
                subject=f"S{wanted.subject}",
                sequence=f"Seq{wanted.sequence}",
                camera_id=str(wanted.camera),
                frame=frame,
                box=box_around(points2d[frame, BODY], BOX_SCALE, f"joints2d x{BOX_SCALE}"),
                smpl=fit,
                joints3d=Keypoints(with_confidence(points3d[frame]), MPI28.name),
                joints2d=Keypoints(with_confidence(points2d[frame]), MPI28.name),
                camera=camera,
                provenance=tuple(provenance),
            )

    def _pictures(self, wanted: VideoUnit, size: tuple[int, int]) -> Iterator[Image | UnreadablePicture]:
        """Yields the wanted frames in order, from the video or its extracted frames.

        Raises:
            Incomplete: there is neither; the video is damaged, too short or of the wrong size; or more is asked for.
        """
        path = self.root / wanted.folder / "imageSequence" / f"video_{wanted.camera}.avi"
        names = extracted_frames(self.root, wanted.subject, wanted.sequence, wanted.camera)
        if not path.is_file() and names is not None:
            for frame in wanted.frames:
                try:
                    yield load_picture(names(frame), size)
                except UnreadablePicture as problem:
                    yield problem
            return
        for picture in sampled_pictures(path, wanted.frames):
            height, width = picture.shape[:2]
            if (width, height) != size:
                raise Incomplete("image size", f"{path} is {width}x{height}, camera.calibration says {size}")
            yield Image(video.encode_jpeg(picture, self.jpeg_quality), "jpg", width, height)

    def _read_test(self, unit: Unit, wanted: TestUnit) -> Iterator[Record | Defect]:
        folder = self.root / TEST_FOLDER / wanted.name
        chosen = self.params.test_joints3d
        points2d, points3d, camera = read_test_annotations(folder / "annot_data.mat", wanted.frames, chosen)
        for frame in wanted.frames:
            if not (plausible(points2d[frame]).all() and plausible(points3d[frame]).all()):
                yield Defect(unit.key, str(frame), "damaged annotation", f"annot_data.mat, frame {frame}: {NOT_FINITE}")
                continue
            try:
                picture = load_picture(folder / "imageSequence" / f"img_{frame + 1:06d}.jpg", TEST_SIZES[wanted.name])
            except UnreadablePicture as problem:
                yield problem.defect(unit.key, str(frame))
                continue
            yield Record(
                key=f"{unit.key}_{frame:06d}",
                dataset=self.dataset,
                split="test",
                image=picture,
                subject=wanted.name,
                sequence=wanted.name,
                frame=frame,
                box=box_around(points2d[frame], BOX_SCALE, f"joints2d x{BOX_SCALE}"),
                joints3d=Keypoints(with_confidence(points3d[frame]), MPI17.name),
                joints2d=Keypoints(with_confidence(points2d[frame]), MPI17.name),
                camera=camera,
                provenance=(
                    ("joints3d", f"{chosen}, mm to m"),
                    ("joints2d", "annot2"),
                    ("camera", "least squares of annot2 on annot3: the test set has no calibration"),
                ),
            )


def sampled_frames(points: np.ndarray, size: tuple[int, int], every: int) -> tuple[int, ...]:
    """Returns every `every`-th of the frames whose 17 body joints lie inside the image; points (N, 28, 2) px."""
    body = points[:, BODY]
    inside = ((body >= 0) & (body < np.array(size))).all(axis=(1, 2))
    return tuple(int(frame) for frame in np.flatnonzero(inside)[::every])


READER = MpiInf3dhp
