"""The files of a training sequence of MPI-INF-3DHP: camera.calibration, annot.mat (MAT v5), extracted frames.

Fourteen cameras are calibrated and annotated. Layout: dataset notes sections 2.1 to 2.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from pose_rft.errors import PoseRftError
from pose_rft.io.matlab import cells, read_mat
from pose_rft.record import Camera

CAMERAS = 14
CHEST_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # "vnect chest-height"
MM = 1000.0
# Where peers put the frames of a video, counted from 1: SPIN, MMHuman3D, MMPose (whose folder is a matter of taste).
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
    """The cameras of a camera.calibration file by their number, metres.

    Peers count characters in it; here lines are split on white space and told apart by their first word, so line ends,
    indentation and a missing last newline do not matter.

    Raises:
        PoseRftError: no such file, or a camera without size, intrinsic or extrinsic numbers.
    """
    try:
        lines = path.read_text(encoding="latin1").splitlines()
    except FileNotFoundError:
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
    """annot.mat: for each camera joints2d (N, 28, 2) px and joints3d (N, 28, 3) metres in the camera frame.

    Raises:
        PoseRftError: no such file, damaged, or not 14 cells of 28 joints.
    """
    if not path.is_file():
        raise PoseRftError(f"{path} does not exist; it is part of every sequence of MPI-INF-3DHP.")
    status = path.stat()
    return _annotations(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # the cameras of one sequence are read one after the other from the same file
def _annotations(path: Path, modified: int, size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    content = read_mat(path)
    try:
        points2d = [np.asarray(cell, np.float64).reshape(-1, 28, 2) for cell in cells(content["annot2"])]
        points3d = [np.asarray(cell, np.float64).reshape(-1, 28, 3) / MM for cell in cells(content["annot3"])]
        if len(points2d) != CAMERAS or len(points3d) != CAMERAS:
            raise ValueError(f"{len(points2d)} cells")
    except (KeyError, ValueError, TypeError) as error:
        raise PoseRftError(
            f"{path} is not an annotation of MPI-INF-3DHP ({error}); expected `annot2` and `annot3` with 14 cells."
        ) from None
    return points2d, points3d


def extracted_frames(root: Path, subject: int, sequence: int, camera: int) -> Callable[[int], Path] | None:
    """Which picture shows a frame (counted from 0) of a video, in the layout that is there; None if there is none."""
    for layout in FRAME_NAMES:
        name = partial(layout.format, s=subject, q=sequence, c=camera)
        # Some copies hold only the frames that somebody sampled, so any frame will do as a sign of the layout.
        if next(root.glob(name(n=SIX_DIGITS)), None) is not None:
            return lambda frame, name=name: root / name(n=f"{frame + 1:06d}")  # type: ignore[misc]
    return None


def of_camera(cameras: Mapping[int, Calibration], number: int, folder: Path) -> Calibration:
    if number not in cameras:
        raise PoseRftError(f"{folder / 'camera.calibration'} has no camera {number}; get the file again.")
    return cameras[number]
