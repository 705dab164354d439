"""Human3.6M: H.264 videos, CDF poses, mask boxes, SMPL from published fits (`video_fits.py`).

Protocol (SPIN, HMR2): every 5th frame; train = S1, S5, S6, S7, S8; `p1` = S9 and S11 from all cameras, `p2` the same
from the frontal camera 60457274. Video frame i belongs to pose i (peers that read one frame before their loop are off
by one). Layout and traps: dataset notes section 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pose_rft.body.joints import H36M32
from pose_rft.core.errors import PoseRftError
from pose_rft.core.params import Count, Fraction, Section
from pose_rft.core.record import Box, Defect, Image, Keypoints, Record
from pose_rft.io import video
from pose_rft.io.cdf import read_variable
from pose_rft.io.matlab import Cells, open_hdf5
from pose_rft.releases.base import (
    Incomplete,
    Reader,
    Unit,
    box_around,
    check_split,
    existing_files,
    require,
    sample_key,
    sampled_pictures,
    square_box,
    with_confidence,
)
from pose_rft.releases.fits import BrokenFit, FitSource, fit_files
from pose_rft.releases.h36m_metadata import CAMERAS, MM, Metadata, Sequence, read_metadata
from pose_rft.releases.video_fits import NOTES, VideoName, fits_of_video

Split = Literal["train", "p1", "p2"]
SPLIT_SUBJECTS: Mapping[str, tuple[int, ...]] = {"train": (1, 5, 6, 7, 8), "p1": (9, 11), "p2": (9, 11)}
FRONTAL = "60457274"
# This video is not in the release; the published P1 count (109,867) leaves it out.
KNOWN_MISSING = (11, "Directions", "54138969")
# The 3D poses of these sequences drift away from the video (HybrIK h36m_smpl.py drops them; P1 and P2 keep them).
DRIFTED = {(9, "Greeting"), (9, "SittingDown 1"), (9, "Waiting 1")}
# In most videos up to 17 frames come after the last pose; in five sequences of S9 more than a hundred.
POSES_END_EARLY = 50
MASK_SCALE, JOINTS_SCALE = 0.9, 1.2  # SPIN's factor for the generous mask boxes; MMPose's for joints
MASK_FOLDERS = ("ground_truth_bb", "ground_truth_bs")  # boxes, or silhouettes: the same extent
POSE_FOLDERS = ("MyPoseFeatures/{}", "Poses_{}", "{}")  # official tree, h36m-fetch, unpacked per archive


class H36mParams(Section):
    """`datasets.h36m` in params.yaml. fits: files below the root, the first that has a frame counts."""

    root: str = "h36m"
    splits: tuple[Split, ...] = ("train", "p2")
    every: Count = 5
    fits: tuple[FitSource, ...] = ()
    max_defect_rate: Fraction = 0.01


@dataclass(frozen=True)
class VideoUnit:
    """A video: the sequence, the camera's index in `CAMERAS`, and the step between samples."""

    sequence: Sequence
    camera: int
    every: int

    @property
    def key(self) -> str:
        return sample_key("h36m", f"S{self.sequence.subject}", self.sequence.name, CAMERAS[self.camera])

    @property
    def stem(self) -> str:
        return f"{self.sequence.name}.{CAMERAS[self.camera]}"

    @property
    def frames(self) -> range:
        """The sampled frames: as many as there are poses, whatever the video's length."""
        return range(0, self.sequence.poses, self.every)

    @property
    def name(self) -> VideoName:
        """What files of fits call it."""
        return VideoName(
            subject=self.sequence.subject,
            nested=(self.sequence.action, self.sequence.subaction),
            picture=(f"S{self.sequence.subject}", self.sequence.name.replace(" ", "_"), CAMERAS[self.camera]),
            mosh=f"S{self.sequence.subject}/{self.sequence.name}_cam{self.camera}_aligned.pkl",
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """What is worth knowing about the video's labels; samples are kept all the same, as P1 and P2 keep them."""
        drifted = (self.sequence.subject, self.sequence.name) in DRIFTED
        early = self.sequence.frames[self.camera] - self.sequence.poses > POSES_END_EARLY
        return ("annotation_drift",) * drifted + ("poses_end_early",) * early

    @property
    def is_known_missing(self) -> bool:
        return (self.sequence.subject, self.sequence.name, CAMERAS[self.camera]) == KNOWN_MISSING


def planned_videos(metadata: Metadata, split: str, every: int) -> list[VideoUnit]:
    """Every video that the metadata promises for the split, sorted by key."""
    cameras = [CAMERAS.index(FRONTAL)] if split == "p2" else range(len(CAMERAS))
    videos = [
        VideoUnit(sequence, camera, every)
        for subject in SPLIT_SUBJECTS[split]
        for sequence in metadata.of_subject(subject)
        for camera in cameras
        if sequence.poses and sequence.frames[camera]
    ]
    return sorted(videos, key=lambda unit: unit.key)


class H36m(Reader):
    """Reader of Human3.6M; a unit is one video."""

    Params = H36mParams
    params: H36mParams
    dataset = "h36m"
    licence = "Human3.6M licence: academic use only, no redistribution; NeuralAnnot fits CC BY-NC 4.0"
    where_to_get = "http://vision.imar.ro/human3.6m (fits: https://github.com/mks0601/NeuralAnnot_RELEASE)"

    def units(self, split: str) -> list[Unit]:
        check_split(split, SPLIT_SUBJECTS, self.dataset)
        require(self.root, self.dataset, self.where_to_get)
        videos = planned_videos(read_metadata(self.root / "metadata.xml"), split, self.params.every)
        for subject in {unit.sequence.subject for unit in videos}:
            self._subject_folder(subject)
        return [
            Unit(unit.key, len(unit.frames), (unit,))
            for unit in videos
            if not (unit.is_known_missing and not self._video(unit).is_file())
        ]

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        (wanted,) = unit.payload
        done = 0
        try:
            for row in self._rows(wanted, split):
                yield row
                done += 1
        except Incomplete as problem:
            for frame in wanted.frames[done:]:
                yield Defect(unit.key, str(frame), problem.reason, problem.detail)

    def inventory(self) -> list[Path]:
        folders = ["Videos/*.mp4", *(f"MySegmentsMat/{folder}/*.mat" for folder in MASK_FOLDERS)]
        for kind in ("D2_Positions", "D3_Positions_mono"):
            folders += [f"{folder.format(kind)}/*.cdf" for folder in POSE_FOLDERS]
        subjects = sorted({subject for split in self.params.splits for subject in SPLIT_SUBJECTS[split]})
        patterns = [f"{letter}{subject}/{folder}" for subject in subjects for letter in "Ss" for folder in folders]
        files = existing_files(self.root, ["metadata.xml", *patterns])
        return sorted({*files, *fit_files(self.params.fits, self.root, subjects)})

    def _rows(self, unit: VideoUnit, split: str) -> Iterator[Record | Defect]:
        """One row per sampled frame in order; raises `Incomplete` when the rest of them cannot be read."""
        metadata = read_metadata(self.root / "metadata.xml")
        sequence = unit.sequence
        camera = metadata.camera(sequence.subject, unit.camera)
        size = metadata.sizes[sequence.subject][unit.camera]
        joints3d = self._poses(unit, "D3_Positions_mono", 3) / MM
        joints2d = self._poses(unit, "D2_Positions", 2)
        annotated = min(len(joints3d), len(joints2d))
        frames = [frame for frame in unit.frames if frame < annotated]
        fits = fits_of_video(
            self.params.fits,
            self.root,
            unit.name,
            frames,
            camera,
            joints3d,
            H36M32.name,
            self.body_model,
            optional=split != "train",
        )
        boxes, mask_flags = self._boxes(unit, frames, joints2d)
        flags = tuple(sorted((*unit.flags, *mask_flags)))
        pictures = sampled_pictures(self._video(unit), frames)
        for frame in frames:
            picture = next(pictures)
            height, width = picture.shape[:2]
            if (width, height) != size:
                raise Incomplete("image size", f"the video is {width}x{height}, metadata.xml says {size[0]}x{size[1]}")
            fit = fits.get(frame)
            if isinstance(fit, BrokenFit):
                yield fit.defect(unit.key, str(frame))
                continue
            provenance = [
                ("joints3d", "D3_Positions_mono, mm to m"),
                ("joints2d", "D2_Positions, with lens distortion"),
                ("camera", "metadata.xml w0"),
            ]
            if fit is not None:
                provenance.append(("smpl", NOTES[fit.source]))
            yield Record(
                key=f"{unit.key}_{frame:06d}",
                dataset=self.dataset,
                split=split,
                image=Image(video.encode_jpeg(picture, self.jpeg_quality), "jpg", width, height),
                subject=f"S{sequence.subject}",
                sequence=sequence.name,
                camera_id=CAMERAS[unit.camera],
                frame=frame,
                box=boxes[frame],
                smpl=fit,
                joints3d=Keypoints(with_confidence(joints3d[frame]), H36M32.name),
                joints2d=Keypoints(with_confidence(joints2d[frame]), H36M32.name),
                camera=camera,
                flags=flags,
                provenance=tuple(provenance),
            )
        if len(frames) < len(unit.frames):
            raise Incomplete("missing annotation", f"{annotated} poses, metadata.xml promises {sequence.poses}")

    def _poses(self, unit: VideoUnit, kind: str, axes: int) -> np.ndarray:
        """(T, 32, axes) of one CDF file, in its own unit."""
        folder = self._subject_folder(unit.sequence.subject)
        paths = [folder / name.format(kind) / f"{unit.stem}.cdf" for name in POSE_FOLDERS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise Incomplete("missing annotation", f"{paths[0]} does not exist")
        try:
            poses = read_variable(path, "Pose")[0].reshape(-1, len(H36M32), axes)
        except PoseRftError as error:
            raise Incomplete("damaged annotation", str(error)) from None
        except (LookupError, ValueError) as error:
            raise Incomplete("damaged annotation", f"{path}: {error}") from None
        if not np.isfinite(poses).all():
            raise Incomplete("damaged annotation", f"{path} holds numbers that are not finite")
        return poses

    def _boxes(
        self, unit: VideoUnit, frames: list[int], joints2d: np.ndarray
    ) -> tuple[dict[int, Box], tuple[str, ...]]:
        """Boxes from the release's masks; from the 2D joints where there are none, or the mask is empty.

        A mask file that cannot be read costs no sample, but is a flag of those that it should have served.
        """
        boxes = {frame: box_around(joints2d[frame], JOINTS_SCALE, f"joints2d x{JOINTS_SCALE}") for frame in frames}
        folder = self._subject_folder(unit.sequence.subject) / "MySegmentsMat"
        path = next((p for name in MASK_FOLDERS if (p := folder / name / f"{unit.stem}.mat").is_file()), None)
        if path is None:
            return boxes, ()
        try:
            with open_hdf5(path) as file:
                masks = Cells(file, "Masks")
                for frame in frames:
                    if frame >= len(masks):
                        break
                    inside = masks[frame]
                    if inside.ndim != 2 or not inside.any():
                        continue
                    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
                    corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
                    boxes[frame] = square_box(*corners, MASK_SCALE, f"mask x{MASK_SCALE}")
        except PoseRftError:
            return boxes, ("damaged_mask",)
        return boxes, ()

    def _video(self, unit: VideoUnit) -> Path:
        return self._subject_folder(unit.sequence.subject) / "Videos" / f"{unit.stem}.mp4"

    def _subject_folder(self, subject: int) -> Path:
        """`S1` or `s1`.

        Raises:
            PoseRftError: neither exists.
        """
        lower = self.root / f"s{subject}"
        return lower if lower.is_dir() else require(self.root / f"S{subject}", self.dataset, self.where_to_get)
