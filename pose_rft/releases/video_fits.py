"""Fits of video frames: NeuralAnnot's and MoSh's files, and label files that name their frames.

NeuralAnnot nests two names and a frame: action/subaction/frame for Human3.6M, subject/sequence/frame for MPI-INF-3DHP;
a fit has pose (72 axis-angle numbers), shape (10) and trans (3, metres) in the world frame. MoSh has one file per video
with a pose for every 5th frame, in a camera frame whose y and z point the other way. Label files name a frame by its
picture, counted from 1, in any of the peers' spellings. Frames without a fit are simply absent.
Sources: mks0601/NeuralAnnot_RELEASE, MMHuman3D h36m.py; dataset notes sections 1.1, 1.7, 2.1 and 2.5.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.core.errors import PoseRftError
from pose_rft.core.record import Camera, Smpl
from pose_rft.io.json_files import read_json
from pose_rft.io.unpickle import read_pickle
from pose_rft.releases.fits import FitSource, camera_smpl, place_on_joints3d, posed_joints, smpl_in_camera
from pose_rft.releases.label_rows import plausible
from pose_rft.releases.named_fits import read_named_fits

FILES_AT_ONCE = 2  # a subject of Human3.6M is a file; workers read videos of one subject in a row
MOSH_STEP = 5  # frames between poses
MOSH_TURN = Rotation.from_rotvec([np.pi, 0, 0])
NOTES = {
    "neuralannot": "NeuralAnnot, world to camera frame",
    "mosh": "MoSh, placed on the annotated 3D joints",
    "spin": "SPIN, joined by picture name, placed on the annotated 3D joints",
    "hmr2": "HMR2.0 labels, joined by picture name, placed on the annotated 3D joints",
}
# The peers' names of frames (the number counts from 1); 3DHP in three layouts, Human3.6M in two.
MPI_FRAME = re.compile(r"S(\d)[/_]Seq(\d)[/_](?:imageFrames/)?(?:video_|[Cc]am)(\d+)[/_](?:frame_)?(\d+)$")
H36M_FRAME = re.compile(r"(S\d+)_(.+)\.(\d{8})_(\d+)$")
FrameName = tuple[str, str, str, int]  # subject, sequence, camera, frame from 0


@dataclass(frozen=True)
class VideoName:
    """What the files of fits call a video.

    nested: NeuralAnnot's two outer names; picture: subject, sequence and camera as in `frame_name`; mosh: MoSh's file.
    """

    subject: int
    nested: tuple[int, int]
    picture: tuple[str, str, str]
    mosh: str | None = None


@dataclass(frozen=True, eq=False)
class FrameFits:
    """Fits of one video or sequence: row of each frame; pose (N, 24, 3) axis-angle, betas (N, 10).

    transl (N, 3) metres in the world frame, or None: then pose is in the camera frame and the place is unknown.
    """

    row_of: Mapping[int, int]
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray | None


def fits_of_video(
    sources: Sequence[FitSource],
    root: Path,
    video: VideoName,
    frames: Sequence[int],
    camera: Camera,
    joints3d: np.ndarray,
    joint_set: str,
    body_model: Path,
    optional: bool = False,
) -> dict[int, Smpl]:
    """The camera-frame fit of each of the frames that has one, from the first source that has it.

    Args:
        joints3d: (T, J, 3) metres, camera frame, of all frames of the video; a fit without translation is put there.
        optional: a file that does not exist is passed over (test subjects come without fits).
    Raises:
        PoseRftError: a file is missing, damaged or of another kind.
    """
    found: dict[int, Smpl] = {}
    for source in sources:
        if optional and not source.place(root, video.subject).exists():
            continue
        fits = _fits(source, root, video)
        here = [frame for frame in frames if fits is not None and frame not in found and frame in fits.row_of]
        if fits is None or not here:
            continue
        rows = [fits.row_of[frame] for frame in here]
        pose, betas = fits.pose[rows], fits.betas[rows]
        if fits.transl is not None:
            assert camera.R is not None and camera.t is not None
            smpls = smpl_in_camera(pose, betas, fits.transl[rows], camera.R, camera.t, body_model, source.source)
        else:
            transl = place_on_joints3d(posed_joints(pose, betas, body_model), joints3d[here], joint_set)
            smpls = [camera_smpl(*row, source.source) for row in zip(pose, betas, transl, strict=True)]
        found |= dict(zip(here, smpls, strict=True))
    return found


def frame_name(name: str) -> FrameName | None:
    """A frame of Human3.6M or MPI-INF-3DHP by the name of its picture, frame counted from 0; None for other names."""
    stem = name.rsplit(".", 1)[0]
    if match := MPI_FRAME.search(stem):
        subject, sequence, camera, number = match.groups()
        return f"S{subject}", f"Seq{sequence}", str(int(camera)), int(number) - 1
    if match := H36M_FRAME.match(stem.rsplit("/", 1)[-1]):
        subject, sequence, camera, number = match.groups()
        return subject, sequence, camera, int(number) - 1
    return None


def _fits(source: FitSource, root: Path, video: VideoName) -> FrameFits | None:
    if source.source == "neuralannot":
        return read_neuralannot(source.file(root, video.subject)).get(video.nested)
    if source.source == "mosh":
        folder = source.file(root)
        path = folder / video.mosh if video.mosh else None
        return read_mosh(path) if path is not None and path.is_file() else None
    if source.source == "eft":
        raise PoseRftError("`fits`: EFT has no fits of videos; use neuralannot, mosh, spin or hmr2.")
    return _by_video(source.file(root), source.index_file(root)).get(video.picture)


def read_mosh(path: Path) -> FrameFits:
    """One `…_cam0_aligned.pkl`: `new_poses` (N, 72) for frames 0, 5, 10, …, `betas` (10,).

    Raises:
        PoseRftError: not a readable pickle, it names code, or it has other fields.
    """
    content = read_pickle(path)
    try:
        pose = np.array(content["new_poses"], np.float64).reshape(-1, 24, 3)
        betas = np.asarray(content["betas"], np.float64).ravel()[:10].reshape(10)
    except (KeyError, ValueError, TypeError) as error:
        raise PoseRftError(f"{path} is no MoSh file ({error!r}); expected `new_poses` and `betas`.") from None
    pose[:, 0] = (Rotation.from_rotvec(pose[:, 0]) * MOSH_TURN).as_rotvec()
    rows = {row * MOSH_STEP: row for row in range(len(pose)) if plausible(pose[row]).all()}
    return FrameFits(rows, pose, np.broadcast_to(betas, (len(pose), 10)), None)


def read_neuralannot(path: Path) -> Mapping[tuple[int, int], FrameFits]:
    """All fits of a file by (action, subaction) or (subject, sequence), world frame, metres.

    Raises:
        PoseRftError: no such file, not JSON, or not NeuralAnnot's layout.
    """
    status = path.stat()
    return _neuralannot(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=FILES_AT_ONCE)
def _neuralannot(path: Path, modified: int, size: int) -> Mapping[tuple[int, int], FrameFits]:
    content = read_json(path, dict)
    try:
        return {
            (int(first), int(second)): _sequence(frames)
            for first, inner in content.items()
            for second, frames in inner.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is not a NeuralAnnot SMPL file ({type(error).__name__}: {' '.join(str(error).split())[:120]}); "
            "download it again."
        ) from None


def _sequence(frames: Mapping[str, Mapping[str, list[float]]]) -> FrameFits:
    numbers = sorted(int(frame) for frame in frames)
    fits = [frames[str(number)] for number in numbers]

    def stack(name: str, *shape: int) -> np.ndarray:
        return np.array([np.asarray(fit[name], np.float64).reshape(shape) for fit in fits]).reshape(-1, *shape)

    rows = {number: row for row, number in enumerate(numbers)}
    return FrameFits(rows, stack("pose", 24, 3), stack("shape", 10), stack("trans", 3))


def _by_video(path: Path, index: Path | None) -> Mapping[tuple[str, str, str], FrameFits]:
    files = [file for file in (path, index) if file is not None]
    return _grouped(path, index, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=FILES_AT_ONCE)
def _grouped(path: Path, index: Path | None, modified: tuple[int, ...]) -> Mapping[tuple[str, str, str], FrameFits]:
    rows = read_named_fits(path, index)
    found: dict[tuple[str, str, str], dict[int, int]] = {}
    for row, image in enumerate(rows.images):
        name = frame_name(image) if rows.valid[row] else None
        if name is not None:
            found.setdefault(name[:3], {}).setdefault(name[3], row)
    return {video: FrameFits(frames, rows.pose, rows.betas, None) for video, frames in found.items()}
