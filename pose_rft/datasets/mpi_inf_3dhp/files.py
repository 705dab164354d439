"""Reads the files of MPI-INF-3DHP: camera.calibration, annot.mat (MAT v5) and extracted frames of a training sequence,
annot_data.mat (v7.3) of a test sequence.

Fourteen cameras are calibrated and annotated; the test set has no calibration. Layout: docs/formats.md, MPI-INF-3DHP.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.cameras import intrinsics
from pose_rft.body.joints import MPI17
from pose_rft.datasets.common.labels import plausible
from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.matlab import cells, read_mat
from pose_rft.io.parsing import parsing
from pose_rft.record import Camera

LARGEST_CALIBRATION = 1 << 20  # bytes; real files are 7 kB
CAMERAS = 14
CHEST_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # "vnect chest-height"
MM = 1000.0
TEST_FOLDER = "mpi_inf_3dhp_test_set"
# (width, height) px; other implementations use 2048 as the bound for all of them.
TEST_SIZES = {f"TS{i}": (2048, 2048) if i < 5 else (1920, 1080) for i in range(1, 7)}
# Where other projects store extracted frames: SPIN, MMHuman3D, MMPose (with or without its folder). All number frames
# from 1; other extraction tools may start at 0.
FRAME_NAMES = (
    "S{s}/Seq{q}/imageFrames/video_{c}/frame_{n}.jpg",
    "S{s}/Seq{q}/imageFrames/video_{c}/{n}.jpg",
    "images/S{s}_Seq{q}_Cam{c}_{n}.jpg",
    "S{s}_Seq{q}_Cam{c}_{n}.jpg",
)
SIX_DIGITS = "[0-9]" * 6
FRAME_PATTERNS = tuple(name.format(s="[1-8]", q="[12]", c="*", n=SIX_DIGITS) for name in FRAME_NAMES)


@dataclass(frozen=True, eq=False)
class Calibration:
    """One camera of camera.calibration; size = (width, height) px."""

    camera: Camera
    size: tuple[int, int]


def read_calibration(path: Path) -> dict[int, Calibration]:
    """Returns the cameras of a camera.calibration file by camera number, in metres.

    Other parsers rely on character positions. This one splits lines on white space and identifies them by their first
    word, so line endings, indentation and a missing final newline do not matter.

    Raises:
        PoseRftError: the file does not exist, or a camera lacks its size, intrinsics or extrinsics.
    """
    try:
        lines = door.read_file(path, LARGEST_CALIBRATION).decode("latin1").splitlines()
    except door.Missing:
        raise PoseRftError(f"{path} does not exist; it is part of every sequence of MPI-INF-3DHP.") from None
    found: dict[int, dict[str, list[float]]] = {}
    current: dict[str, list[float]] = {}
    try:
        for words in filter(None, map(str.split, lines)):
            if words[0] == "name":
                current = found.setdefault(int(words[1]), {})
            elif words[0] in ("size", "intrinsic", "extrinsic"):
                current[words[0]] = [float(word) for word in words[1:]]
        cameras = {}
        for number, fields in found.items():
            K = np.array(fields["intrinsic"]).reshape(4, 4)[:3, :3]
            extrinsic = np.array(fields["extrinsic"]).reshape(4, 4)
            width, height = (int(value) for value in fields["size"])
            cameras[number] = Calibration(Camera(K, extrinsic[:3, :3], extrinsic[:3, 3] / MM), (width, height))
    except (ValueError, KeyError, IndexError) as error:
        raise PoseRftError(f"{path} is not a camera.calibration file ({error}); get it again.") from None
    return cameras


def read_annotations(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Reads annot.mat: for each camera, joints2d (N, 28, 2) px and joints3d (N, 28, 3) metres in the camera frame.

    Raises:
        PoseRftError: the file does not exist, is damaged, or does not have 14 cells of 28 joints.
    """
    if not path.is_file():
        raise PoseRftError(f"{path} does not exist; it is part of every sequence of MPI-INF-3DHP.")
    status = path.stat()
    return _annotations(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # the cameras of a sequence share a file and are read in a row
def _annotations(path: Path, modified: int, size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    content = read_mat(path)
    try:
        points2d = [np.asarray(cell, np.float64).reshape(-1, 28, 2) for cell in cells(content["annot2"])]
        points3d = [np.asarray(cell, np.float64).reshape(-1, 28, 3) / MM for cell in cells(content["annot3"])]
        if len(points2d) != CAMERAS or len(points3d) != CAMERAS:
            raise ValueError(f"{len(points2d)} cells")
        if [len(points) for points in points2d] != [len(points) for points in points3d]:
            raise ValueError("not as many poses in 2D as in 3D")
    except (KeyError, ValueError, TypeError) as error:
        raise PoseRftError(
            f"{path} is not an annotation of MPI-INF-3DHP ({error}); expected `annot2` and `annot3` with 14 cells."
        ) from None
    return points2d, points3d


def extracted_frames(root: Path, subject: int, sequence: int, camera: int) -> Callable[[int], Path] | None:
    """Returns a function from a video's frame index (from 0) to its image path; None if no layout has this video."""
    for layout in FRAME_NAMES:
        name = partial(layout.format, s=subject, q=sequence, c=camera)
        # Some copies hold only sampled frames, so any frame identifies the layout.
        if next(root.glob(name(n=SIX_DIGITS)), None) is not None:
            first = 0 if _counts_from_0(root, layout) else 1
            return lambda frame, name=name, first=first: root / name(n=f"{frame + first:06d}")  # type: ignore[misc]
    return None


def _counts_from_0(root: Path, layout: str) -> bool:
    """Whether any video has a frame 0; checks all, because one tool made them and single frames may be missing."""
    videos = ((s, q, c) for s in range(1, 9) for q in (1, 2) for c in range(CAMERAS))
    return any((root / layout.format(s=s, q=q, c=c, n="000000")).exists() for s, q, c in videos)


def of_camera(cameras: Mapping[int, Calibration], number: int, folder: Path) -> Calibration:
    """Returns the calibration of one camera."""
    if number not in cameras:
        raise PoseRftError(f"{folder / 'camera.calibration'} has no camera {number}; get the file again.")
    return cameras[number]


def valid_frames(path: Path) -> tuple[int, ...]:
    """Returns the frames of a test sequence (from 0) that annot_data.mat marks as valid.

    Raises:
        PoseRftError: the file does not exist, is damaged, or has no `valid_frame`.
    """
    valid = np.asarray(_variable(read_mat(path), "valid_frame", path)).ravel()
    return tuple(int(frame) for frame in np.flatnonzero(valid == 1))


def read_test_annotations(path: Path, frames: Sequence[int], joints3d: str) -> tuple[np.ndarray, np.ndarray, Camera]:
    """Returns joints2d (N, 17, 2) px, joints3d (N, 17, 3) metres, camera frame, and the camera of a test sequence.

    Args:
        frames: the frames to use; the camera maps their `annot3` to `annot2`, by least squares.
        joints3d: the variable that holds the 3D joints, `annot3` or `univ_annot3`.
    Raises:
        PoseRftError: the file does not exist, is damaged, or is too short. Non-finite numbers are returned unchanged.
    """
    with parsing(path, "an annotation of MPI-INF-3DHP's test set"):
        content, wanted = read_mat(path), list(frames)
        points2d = _test_points(_variable(content, "annot2", path), 2, wanted)
        points3d = _test_points(_variable(content, "annot3", path), 3, wanted) / MM
        sound = [frame for frame in wanted if plausible(points2d[frame]).all() and plausible(points3d[frame]).all()]
        if not sound:
            raise ValueError("no valid frame has numbers that are finite")
        camera = Camera(estimate_intrinsics(points3d[sound], points2d[sound]))
        if joints3d != "annot3":
            points3d = _test_points(_variable(content, joints3d, path), 3, wanted) / MM
    return points2d, points3d, camera


def estimate_intrinsics(points3d: np.ndarray, points2d: np.ndarray) -> np.ndarray:
    """Fits K (3, 3) px by least squares so that points3d (N, J, 3), camera frame, project to points2d (N, J, 2)."""
    plane = (points3d[..., :2] / points3d[..., 2:]).reshape(-1, 2)
    target = points2d.reshape(-1, 2)
    focal, center = zip(
        *(np.linalg.lstsq(np.stack([plane[:, i], np.ones(len(plane))], 1), target[:, i])[0] for i in (0, 1)),
        strict=True,
    )
    return intrinsics(focal[0], focal[1], center[0], center[1])


def _test_points(value: np.ndarray, axes: int, frames: Sequence[int]) -> np.ndarray:
    """Reshapes a variable from MATLAB's (axes, 17, 1, N) to (N, 17, axes).

    Raises:
        ValueError: the shape differs, or the variable is too short for the frames.
    """
    points = np.moveaxis(np.asarray(value, np.float64).reshape(axes, len(MPI17), -1), -1, 0).swapaxes(1, 2)
    if frames and max(frames) >= len(points):
        raise ValueError(f"{len(points)} frames for frame {max(frames)}")
    return points


def _variable(content: Mapping[str, Any], name: str, path: Path) -> np.ndarray:
    if name not in content:
        raise PoseRftError(f"{path} has no variable `{name}`; get the test set again.")
    value: np.ndarray = content[name]
    return value
