"""Fits of video frames: files of NeuralAnnot and MoSh, and label files that name their frames.

NeuralAnnot nests two keys and a frame: action/subaction/frame for Human3.6M, subject/sequence/frame for MPI-INF-3DHP;
a fit has pose (72 axis-angle numbers), shape (10) and trans (3, metres) in the world frame. MoSh has one file per video
with a pose for every 5th frame, in a camera frame with y and z inverted. Label files identify a frame by its image
name, in any of the common naming schemes; numbers start at 1, or at 0 if the file has a frame 0. Frames without a fit
are absent.
Sources: mks0601/NeuralAnnot_RELEASE, MMHuman3D h36m.py; docs/formats.md, SMPL fits.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.datasets.common.labels import plausible
from pose_rft.datasets.fits.named_fits import read_named_fits
from pose_rft.datasets.fits.sources import (
    NOT_FINITE,
    BrokenFit,
    FitSource,
    camera_smpl,
    place_on_joints3d,
    posed_joints,
    smpl_in_camera,
)
from pose_rft.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.io.parsing import DAMAGE
from pose_rft.io.unpickle import read_pickle
from pose_rft.record import Camera, Smpl

FILES_AT_ONCE = 2  # Human3.6M has one file per subject, and workers read a subject's videos in a row
NEURALANNOT = {"pose": 72, "shape": 10, "trans": 3}  # numbers per field of a fit
MOSH_STEP = 5  # frames between poses
MOSH_TURN = Rotation.from_rotvec([np.pi, 0, 0])
NOTES = {
    "neuralannot": "NeuralAnnot, world to camera frame",
    "mosh": "MoSh, placed on the annotated 3D joints",
    "spin": "SPIN, joined by picture name, placed on the annotated 3D joints",
    "hmr2": "HMR2.0 labels, joined by picture name, placed on the annotated 3D joints",
}
# Frame names of other projects (numbered from 1); 3DHP in three layouts, Human3.6M in two.
MPI_FRAME = re.compile(r"S(\d)[/_]Seq(\d)[/_](?:imageFrames/)?(?:video_|[Cc]am)(\d+)[/_](?:frame_)?(\d+)$")
H36M_FRAME = re.compile(r"(S\d+)_(.+)\.(\d{8})_(\d+)$")
FrameName = tuple[str, str, str, int]  # subject, sequence, camera, number of the frame


@dataclass(frozen=True)
class VideoName:
    """The names of a video in fit files.

    nested: NeuralAnnot's two outer keys; picture: subject, sequence and camera as in `frame_name`; mosh: MoSh's file.
    """

    subject: int
    nested: tuple[int, int]
    picture: tuple[str, str, str]
    mosh: str | None = None


@dataclass(frozen=True, eq=False)
class FrameFits:
    """Fits of one video or sequence: `row_of` each frame; pose (N, 24, 3) axis-angle, betas (N, 10).

    transl (N, 3) metres in the world frame; if None, pose is in the camera frame and the translation is unknown.
    broken: frame → what is wrong with its fit.
    """

    row_of: Mapping[int, int]
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray | None
    broken: Mapping[int, str] = field(default_factory=dict)


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
) -> dict[int, Smpl | BrokenFit]:
    """Returns the camera-frame fit of each frame that has one, from the first source that has it.

    Args:
        joints3d: (T, J, 3) metres, camera frame, of all frames of the video; they place a fit without translation.
        optional: skips missing files and broken fits (test subjects have no fits and are evaluated on the release's
            joints).
    Raises:
        PoseRftError: a file is missing, damaged or in the wrong format.
    """
    found: dict[int, Smpl | BrokenFit] = {}
    for source in sources:
        if optional and not source.place(root, video.subject).exists():
            continue
        fits = _fits(source, root, video, body_model)
        if fits is None:
            continue
        found |= {n: BrokenFit(fits.broken[n]) for n in frames if n in fits.broken and n not in found}
        here = [frame for frame in frames if frame not in found and frame in fits.row_of]
        if not here:
            continue
        rows = [fits.row_of[frame] for frame in here]
        pose, betas = fits.pose[rows], fits.betas[rows]
        smpls: Sequence[Smpl | BrokenFit]
        if fits.transl is not None:
            assert camera.R is not None and camera.t is not None
            smpls = smpl_in_camera(pose, betas, fits.transl[rows], camera.R, camera.t, body_model, source.source)
        else:
            transl = place_on_joints3d(posed_joints(pose, betas, body_model), joints3d[here], joint_set)
            smpls = [camera_smpl(*row, source.source) for row in zip(pose, betas, transl, strict=True)]
        found |= dict(zip(here, smpls, strict=True))
    return {n: fit for n, fit in found.items() if isinstance(fit, Smpl)} if optional else found


def frame_name(name: str) -> FrameName | None:
    """Parses the image name of a Human3.6M or MPI-INF-3DHP frame, keeping its number; None for other names.

    Numbers usually start at 1 but may start at 0, depending on the extraction tool; only all names of a file tell.
    """
    stem = name.rsplit(".", 1)[0]
    if match := MPI_FRAME.search(stem):
        subject, sequence, camera, number = match.groups()
        return f"S{subject}", f"Seq{sequence}", str(int(camera)), int(number)
    if match := H36M_FRAME.match(stem.rsplit("/", 1)[-1]):
        subject, sequence, camera, number = match.groups()
        return subject, sequence, camera, int(number)
    return None


def _fits(source: FitSource, root: Path, video: VideoName, body_model: Path) -> FrameFits | None:
    if source.source == "neuralannot":
        return read_neuralannot(source.file(root, video.subject)).get(video.nested)
    if source.source == "mosh":
        folder = source.file(root)
        path = folder / video.mosh if video.mosh else None
        return read_mosh(path) if path is not None and path.is_file() else None
    if source.source == "eft":
        raise PoseRftError("`fits`: EFT has no fits of videos; use neuralannot, mosh, spin or hmr2.")
    return _by_video(source.file(root), source.index_file(root), body_model).get(video.picture)


def read_mosh(path: Path) -> FrameFits:
    """Reads one `…_cam0_aligned.pkl`: `new_poses` (N, 72) for frames 0, 5, 10, …, `betas` (10,).

    Raises:
        PoseRftError: the pickle is unreadable or refers to code, or a field is missing or has the wrong shape.
    """
    content = read_pickle(path)
    try:
        pose = np.array(content["new_poses"], np.float64).reshape(-1, 24, 3)
        betas = np.asarray(content["betas"], np.float64).ravel()[:10].reshape(10)
    except (KeyError, ValueError, TypeError) as error:
        raise PoseRftError(f"{path} is no MoSh file ({error!r}); expected `new_poses` and `betas`.") from None
    sound = plausible(pose).all(axis=(1, 2)) & plausible(betas).all()
    pose[~sound] = 0
    pose[:, 0] = (Rotation.from_rotvec(pose[:, 0]) * MOSH_TURN).as_rotvec()
    rows = {row * MOSH_STEP: row for row in np.flatnonzero(sound).tolist()}
    broken = {row * MOSH_STEP: f"{path.name}, pose {row}: {NOT_FINITE}" for row in np.flatnonzero(~sound).tolist()}
    return FrameFits(rows, pose, np.broadcast_to(betas, (len(pose), 10)), None, broken)


def read_neuralannot(path: Path) -> Mapping[tuple[int, int], FrameFits]:
    """Reads all fits of a file by (action, subaction) or (subject, sequence), world frame, metres.

    Raises:
        PoseRftError: not JSON, or not in NeuralAnnot's format.
    """
    status = path.stat()
    return _neuralannot(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=FILES_AT_ONCE)
def _neuralannot(path: Path, modified: int, size: int) -> Mapping[tuple[int, int], FrameFits]:
    content = read_json(path, dict)
    try:
        sequences = {
            (int(first), int(second)): _sequence(frames, f"{path.name}, {first}/{second}")
            for first, inner in content.items()
            for second, frames in inner.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is not a NeuralAnnot SMPL file ({type(error).__name__}: {' '.join(str(error).split())[:120]}); "
            "download it again."
        ) from None
    problems = [problem for sequence in sequences.values() for problem in sequence.broken.values()]
    if problems and not any(sequence.row_of for sequence in sequences.values()):
        raise PoseRftError(f"{path} is not a NeuralAnnot SMPL file (none of its fits is one; {problems[0]}).")
    return sequences


def _sequence(frames: Mapping[str, Mapping[str, list[float]]], where: str) -> FrameFits:
    """Returns the fits of one sequence; malformed or non-finite fits are listed in `broken`."""
    fits: list[np.ndarray] = []
    rows, broken = {}, {}
    for number in sorted(int(frame) for frame in frames):
        try:
            fit = frames[str(number)]
            numbers = [np.asarray(fit[name], np.float64).reshape(size) for name, size in NEURALANNOT.items()]
            together = np.concatenate(numbers)
            problem = None if plausible(together).all() else NOT_FINITE
        except DAMAGE as error:
            problem = f"{type(error).__name__}, {' '.join(str(error).split())[:120]}"
        if problem is None:
            rows[number] = len(fits)
            fits.append(together)
        else:
            broken[number] = f"{where}, frame {number}: {problem}"
    together = np.stack(fits) if fits else np.zeros((0, sum(NEURALANNOT.values())))
    pose, betas, transl = np.split(together, np.cumsum(list(NEURALANNOT.values()))[:-1], axis=1)
    return FrameFits(rows, pose.reshape(-1, 24, 3), betas, transl, broken)


def _by_video(path: Path, index: Path | None, body_model: Path) -> Mapping[tuple[str, str, str], FrameFits]:
    files = [file for file in (path, index) if file is not None]
    return _grouped(path, index, body_model, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=FILES_AT_ONCE)
def _grouped(
    path: Path, index: Path | None, body_model: Path, modified: tuple[int, ...]
) -> Mapping[tuple[str, str, str], FrameFits]:
    rows = read_named_fits(path, body_model, index)
    named = [(row, name) for row, image in enumerate(rows.images) if (name := frame_name(image)) is not None]
    first = 0 if any(name[3] == 0 for _, name in named) else 1  # the number of a video's first frame
    found: dict[tuple[str, str, str], tuple[dict[int, int], dict[int, str]]] = {}
    for row, name in named:
        sound, broken = found.setdefault(name[:3], ({}, {}))
        if rows.valid[row]:
            sound.setdefault(name[3] - first, row)
        elif rows.broken[row]:
            broken.setdefault(name[3] - first, f"{path.name}, row {row} ({rows.images[row]}): {NOT_FINITE}")
    return {video: FrameFits(sound, rows.pose, rows.betas, None, broken) for video, (sound, broken) in found.items()}
