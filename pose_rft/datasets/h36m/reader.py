"""Human3.6M: H.264 videos, CDF poses, mask boxes, SMPL from published fits (`video_fits.py`); or the frames and arrays
that MMPose extracts from them (`frames.py`).

Protocol (SPIN, HMR2): every 5th frame; train = S1, S5, S6, S7, S8; `p1` = S9 and S11 from all cameras, `p2` the same
from the frontal camera 60457274. Video frame i belongs to pose i (some other implementations read a frame before their
loop and are off by one). Layout and pitfalls: docs/formats.md, Human3.6M.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pose_rft.body.joints import H36M17, H36M32
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
    square_box,
    with_confidence,
)
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture
from pose_rft.datasets.fits.sources import BrokenFit, FitSource, fit_files
from pose_rft.datasets.fits.video_fits import NOTES, VideoName, fits_of_video
from pose_rft.datasets.h36m import frames as h36m_frames
from pose_rft.datasets.h36m.metadata import CAMERAS, MM, Metadata, Sequence, read_metadata
from pose_rft.errors import PoseRftError
from pose_rft.io import video
from pose_rft.io.cdf import read_variable
from pose_rft.io.matlab import Cells, open_hdf5
from pose_rft.params import Count, Fraction, Section
from pose_rft.record import Box, Defect, Image, Keypoints, Record

Split = Literal["train", "p1", "p2"]
SPLIT_SUBJECTS: Mapping[str, tuple[int, ...]] = {"train": (1, 5, 6, 7, 8), "p1": (9, 11), "p2": (9, 11)}
FRONTAL = "60457274"
# The release lacks this video; the published P1 count (109,867) excludes it.
KNOWN_MISSING = (11, "Directions", "54138969")
# In these sequences the 3D poses drift relative to the video (HybrIK h36m_smpl.py drops them; P1 and P2 keep them).
DRIFTED = {(9, "Greeting"), (9, "SittingDown 1"), (9, "Waiting 1")}
# Most videos have up to 17 frames after the last pose; in five sequences of S9 there are more than a hundred.
POSES_END_EARLY = 50
MASK_SCALE, JOINTS_SCALE = 0.9, 1.2  # SPIN's factor for the loose mask boxes; MMPose's for joints
MASK_FOLDERS = ("ground_truth_bb", "ground_truth_bs")  # boxes or silhouettes, which have the same extent
POSE_FOLDERS = ("MyPoseFeatures/{}", "Poses_{}", "{}")  # official tree, h36m-fetch, unpacked per archive


class H36mParams(Section):
    """`datasets.h36m` in params.yaml. fits: files below the root; the first that has a frame is used.

    subjects: the subjects to read; None reads all of the split, and each subject missing on disk is a defect.
    """

    root: str = "h36m"
    splits: tuple[Split, ...] = ("train", "p2")
    subjects: tuple[Literal[1, 5, 6, 7, 8, 9, 11], ...] | None = None
    every: Count = 5
    fits: tuple[FitSource, ...] = ()
    max_defect_rate: Fraction = 0.01


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses of one video: sampled frames that are annotated, ascending; they index joints2d (T, J, 2) px and joints3d
    (T, J, 3) metres, camera frame."""

    frames: list[int]
    joints2d: np.ndarray
    joints3d: np.ndarray
    joint_set: str
    origin: tuple[tuple[str, str], ...]  # for the provenance of samples


@dataclass(frozen=True)
class VideoUnit:
    """A video: the sequence, the camera's index in `CAMERAS`, and the step between samples."""

    sequence: Sequence
    camera: int
    every: int

    @property
    def key(self) -> str:
        """The unit's key, from subject, sequence and camera."""
        return sample_key("h36m", f"S{self.sequence.subject}", self.sequence.name, CAMERAS[self.camera])

    @property
    def stem(self) -> str:
        """The video's file name in the release, without its extension."""
        return f"{self.sequence.name}.{CAMERAS[self.camera]}"

    @property
    def extracted(self) -> str:
        """MMPose's name for the folder of its frames."""
        return h36m_frames.video_stem(self.sequence.subject, self.sequence.name, CAMERAS[self.camera])

    @property
    def frames(self) -> range:
        """The sampled frames; the number of poses sets the range, not the length of the video."""
        return range(0, self.sequence.poses, self.every)

    @property
    def name(self) -> VideoName:
        """The names of this video in fit files."""
        return VideoName(
            subject=self.sequence.subject,
            nested=(self.sequence.action, self.sequence.subaction),
            picture=(f"S{self.sequence.subject}", self.sequence.name.replace(" ", "_"), CAMERAS[self.camera]),
            mosh=f"S{self.sequence.subject}/{self.sequence.name}_cam{self.camera}_aligned.pkl",
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """Known problems of the video's labels; flagged samples are kept, because P1 and P2 include them."""
        drifted = (self.sequence.subject, self.sequence.name) in DRIFTED
        early = self.sequence.frames[self.camera] - self.sequence.poses > POSES_END_EARLY
        return ("annotation_drift",) * drifted + ("poses_end_early",) * early

    @property
    def is_known_missing(self) -> bool:
        """Whether the release itself lacks this video."""
        return (self.sequence.subject, self.sequence.name, CAMERAS[self.camera]) == KNOWN_MISSING


def planned_videos(metadata: Metadata, split: str, every: int) -> list[VideoUnit]:
    """Returns every video that the metadata lists for the split, sorted by key."""
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
        wanted = [n for n in SPLIT_SUBJECTS[split] if n in (self.params.subjects or SPLIT_SUBJECTS[split])]
        missing = [n for n in wanted if self._subject_folder(n) is None]
        if missing == wanted:
            raise PoseRftError(
                f"{self.dataset}: of the subjects of {split} that `datasets.h36m.subjects` wants ({wanted}) "
                f"{self.root} has none; get them from {self.where_to_get} and set `data.root`."
            )
        units = [
            Unit(unit.key, len(unit.frames), (unit,))
            for unit in videos
            if unit.sequence.subject in wanted and unit.sequence.subject not in missing
            if not (unit.is_known_missing and not self._is_there(unit))
        ]
        if missing and self.params.subjects is not None:
            raise PoseRftError(
                f"{self.dataset}: {self.root / f'S{missing[0]}'} does not exist; get it from {self.where_to_get}, or "
                "take it out of `datasets.h36m.subjects`."
            )
        units += [Unit(sample_key(self.dataset, f"S{n}"), 1, (n,)) for n in missing]
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        (wanted,) = unit.payload
        if isinstance(wanted, int):
            yield Defect(unit.key, f"S{wanted}", "missing subject", f"{self.root / f'S{wanted}'} does not exist")
            return
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
        patterns += [f"{h36m_frames.IMAGES}/S{subject}/*/*.*" for subject in subjects]
        patterns += [h36m_frames.ARRAYS.format(split=split) for split in ("train", "test")]
        files = existing_files(self.root, ["metadata.xml", *patterns])
        return sorted({*files, *fit_files(self.params.fits, self.root, subjects)})

    def _rows(self, unit: VideoUnit, split: str) -> Iterator[Record | Defect]:
        """Yields one row per sampled frame, in order; raises `Incomplete` if the remaining frames cannot be read."""
        metadata = read_metadata(self.root / "metadata.xml")
        sequence = unit.sequence
        camera = metadata.camera(sequence.subject, unit.camera)
        size = metadata.sizes[sequence.subject][unit.camera]
        poses = self._poses(unit, split)
        fits = fits_of_video(
            self.params.fits,
            self.root,
            unit.name,
            poses.frames,
            camera,
            poses.joints3d,
            poses.joint_set,
            self.body_model,
            optional=split != "train",
        )
        boxes, mask_flags = self._boxes(unit, poses.frames, poses.joints2d)
        flags = tuple(sorted((*unit.flags, *mask_flags)))
        pictures = self._pictures(unit, poses.frames, size)
        annotated = set(poses.frames)
        for frame in unit.frames:
            if frame not in annotated:
                detail = f"{len(annotated)} of {len(unit.frames)} sampled frames have poses"
                yield Defect(unit.key, str(frame), "missing annotation", detail)
                continue
            picture = next(pictures)
            if isinstance(picture, Defect):
                yield picture
                continue
            fit = fits.get(frame)
            if isinstance(fit, BrokenFit):
                yield fit.defect(unit.key, str(frame))
                continue
            provenance = [*poses.origin, ("camera", "metadata.xml w0")]
            if fit is not None:
                provenance.append(("smpl", NOTES[fit.source]))
            yield Record(
                key=f"{unit.key}_{frame:06d}",
                dataset=self.dataset,
                split=split,
                image=picture,
                subject=f"S{sequence.subject}",
                sequence=sequence.name,
                camera_id=CAMERAS[unit.camera],
                frame=frame,
                box=boxes[frame],
                smpl=fit,
                joints3d=Keypoints(with_confidence(poses.joints3d[frame]), poses.joint_set),
                joints2d=Keypoints(with_confidence(poses.joints2d[frame]), poses.joint_set),
                camera=camera,
                flags=flags,
                provenance=tuple(provenance),
            )

    def _pictures(self, unit: VideoUnit, frames: list[int], size: tuple[int, int]) -> Iterator[Image | Defect]:
        """Yields the image of each frame, or a Defect; reads the video, or extracted frames if there is no video.

        Raises:
            Incomplete: there is neither, or the video is damaged, too short, or of the wrong size.
        """
        folder = h36m_frames.frames_folder(self.root, unit.sequence.subject, unit.extracted)
        if not self._video(unit).is_file() and folder.is_dir():
            extracted = h36m_frames.extracted_frames(folder)
            for frame in frames:
                try:
                    yield load_picture(extracted.get(frame, folder / f"frame {frame}"), size)
                except UnreadablePicture as problem:
                    yield problem.defect(unit.key, str(frame))
            return
        for picture in sampled_pictures(self._video(unit), frames):
            height, width = picture.shape[:2]
            if (width, height) != size:
                raise Incomplete("image size", f"the video is {width}x{height}, metadata.xml says {size[0]}x{size[1]}")
            yield Image(video.encode_jpeg(picture, self.jpeg_quality), "jpg", width, height)

    def _poses(self, unit: VideoUnit, split: str) -> Poses:
        """Reads the poses from the CDF files, or from MMPose's arrays if this video has no CDF files."""
        if self._cdf(unit, "D3_Positions_mono") is None:
            step = self.params.every
            found = h36m_frames.read_poses(self.root, "train" if split == "train" else "test", step, unit.extracted)
            if found is not None:
                frames = [frame for frame in unit.frames if frame in found.row_of]
                length = max(frames, default=-1) + 1
                joints2d, joints3d = np.zeros((length, len(H36M17), 2)), np.zeros((length, len(H36M17), 3))
                rows = [found.row_of[frame] for frame in frames]
                joints2d[frames], joints3d[frames] = found.joints2d[rows], found.joints3d[rows]
                if not (np.isfinite(joints2d).all() and np.isfinite(joints3d).all()):
                    raise Incomplete("damaged annotation", f"{unit.extracted} has numbers that are not finite")
                origin = (("joints3d", "MMPose npz, S"), ("joints2d", "MMPose npz, part, with lens distortion"))
                return Poses(frames, joints2d, joints3d, H36M17.name, origin)
        joints3d = self._cdf_poses(unit, "D3_Positions_mono", 3) / MM
        joints2d = self._cdf_poses(unit, "D2_Positions", 2)
        frames = [frame for frame in unit.frames if frame < min(len(joints3d), len(joints2d))]
        origin = (("joints3d", "D3_Positions_mono, mm to m"), ("joints2d", "D2_Positions, with lens distortion"))
        return Poses(frames, joints2d, joints3d, H36M32.name, origin)

    def _cdf(self, unit: VideoUnit, kind: str) -> Path | None:
        folder = self._own_folder(unit.sequence.subject)
        paths = [folder / name.format(kind) / f"{unit.stem}.cdf" for name in POSE_FOLDERS]
        return next((path for path in paths if path.is_file()), None)

    def _cdf_poses(self, unit: VideoUnit, kind: str, axes: int) -> np.ndarray:
        """Reads (T, 32, axes) from one CDF file, in the file's unit."""
        path = self._cdf(unit, kind)
        if path is None:
            missing = self._own_folder(unit.sequence.subject) / POSE_FOLDERS[0].format(kind) / f"{unit.stem}.cdf"
            raise Incomplete("missing annotation", f"{missing} does not exist")
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
        """Returns boxes from the release's masks, or from the 2D joints where a mask is missing or empty.

        If a mask file cannot be read, its samples are kept with a flag and boxes from the 2D joints.
        """
        boxes = {frame: box_around(joints2d[frame], JOINTS_SCALE, f"joints2d x{JOINTS_SCALE}") for frame in frames}
        folder = self._own_folder(unit.sequence.subject) / "MySegmentsMat"
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
        return self._own_folder(unit.sequence.subject) / "Videos" / f"{unit.stem}.mp4"

    def _is_there(self, unit: VideoUnit) -> bool:
        """Whether the video, or a folder of its frames, exists."""
        folder = h36m_frames.frames_folder(self.root, unit.sequence.subject, unit.extracted)
        return self._video(unit).is_file() or folder.is_dir()

    def _own_folder(self, subject: int) -> Path:
        """Returns the subject's folder in the release: `S1` or `s1`."""
        lower = self.root / f"s{subject}"
        return lower if lower.is_dir() else self.root / f"S{subject}"

    def _subject_folder(self, subject: int) -> Path | None:
        """Returns a folder of the subject: the release's own, else that of extracted frames; None if neither exists."""
        folders = (self._own_folder(subject), self.root / h36m_frames.IMAGES / f"S{subject}")
        return next((folder for folder in folders if folder.is_dir()), None)


READER = H36m
