"""Reads Human3.6M's metadata.xml: sequence names, sequence lengths and cameras.

Names are irregular (`TakingPhoto` only for S1, `Greeting 2` for S11's first), so they are always looked up, never
constructed. Actions run 1..16 and subactions 1..2; action 1 (`_ALL…`) is a calibration sequence, which is not used.
Layout: docs/formats.md, Human3.6M; the real file is 110 kB and comes with h36m-fetch.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import H36M_MODEL, intrinsics
from pose_rft.errors import PoseRftError
from pose_rft.io.parsing import parsing
from pose_rft.io.xml_files import read_xml
from pose_rft.record import Camera

SUBJECTS = tuple(range(1, 12))
CAMERAS = ("54138969", "55011271", "58860488", "60457274")  # the order of all per-camera lists in the file
ACTIONS = tuple(range(1, 17))
CALIBRATION_ACTION = 1
EXTRINSICS, INTRINSICS = 6, 9  # numbers per camera and subject, numbers per camera
POSES_PER_MOCAP = 4  # poses come at 50 Hz, motion capture ran at 200 Hz
LONGEST = 1_000_000  # frames of one sequence; the longest have 25,000 motion-capture frames
MM = 1000.0


@dataclass(frozen=True)
class Sequence:
    """One sequence of one subject: `name` is the part of its file names before the camera id.

    poses: rows of its CDF files, T = floor(mocap / 4). frames: video length of each camera; 0 = no video.
    """

    subject: int
    action: int
    subaction: int
    name: str
    poses: int
    frames: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Metadata:
    """`sizes[subject][camera]` = (width, height) px; w0 (300,) = 44 extrinsics (6 each), then 4 intrinsics (9)."""

    sequences: tuple[Sequence, ...]
    sizes: dict[int, tuple[tuple[int, int], ...]]
    w0: np.ndarray

    def of_subject(self, subject: int) -> Iterator[Sequence]:
        """Yields the subject's sequences except calibration sequences."""
        return (s for s in self.sequences if s.subject == subject and not s.name.startswith("_ALL"))

    def camera(self, subject: int, camera: int) -> Camera:
        """Returns camera `camera` (0..3) for `subject`, in metres, with Human3.6M's own distortion model.

        The file has three Euler angles (world → camera; intrinsic x, y, z rotations) and the camera centre in mm.
        """
        start = EXTRINSICS * (camera * len(SUBJECTS) + subject - 1)
        angles, center = np.split(self.w0[start : start + EXTRINSICS], 2)
        R = Rotation.from_euler("XYZ", angles).as_matrix()
        start = EXTRINSICS * len(CAMERAS) * len(SUBJECTS) + INTRINSICS * camera
        fx, fy, cx, cy, *distortion = self.w0[start : start + INTRINSICS]
        return Camera(intrinsics(fx, fy, cx, cy), R, -R @ center / MM, np.array(distortion), H36M_MODEL)


def read_metadata(path: Path) -> Metadata:
    """Reads metadata.xml.

    Raises:
        PoseRftError: no such file, not XML, or not Human3.6M's layout.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise PoseRftError(f"{path} does not exist; it comes with Human3.6M and with anibali/h36m-fetch.") from None
    return _metadata(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)  # for a short video, parsing takes longer than everything else
def _metadata(path: Path, modified: int, size: int) -> Metadata:
    with parsing(path, "Human3.6M's metadata.xml"):
        return _parse(read_xml(path))


def _parse(root: ElementTree.Element) -> Metadata:
    rows = [[cell.text or "" for cell in row] for row in _child(root, "mapping")]
    lengths = [[_numbers(cell.text or "") for cell in row] for row in _child(root, "frames")]
    names = [row for row in rows if row[0].strip().isdigit()]
    w0 = np.array(_numbers(_child(root, "w0").text or ""))
    count = len(CAMERAS) * (EXTRINSICS * len(SUBJECTS) + INTRINSICS)
    if len(w0) != count or not np.isfinite(w0).all():
        raise ValueError(f"w0 has {len(w0)} numbers, expected {count}")
    if len(lengths) != len(SUBJECTS):
        raise ValueError(f"`frames` has {len(lengths)} rows, expected one for each of {len(SUBJECTS)} subjects")
    sequences = []
    for subject in SUBJECTS:
        for row, (action, subaction, *own) in enumerate(names):
            *frames, mocap = (int(value) for value in lengths[subject - 1][1 + row])
            a, b, c, d = frames
            if not 0 <= max(*frames, mocap) <= LONGEST:
                raise ValueError(f"a sequence of {max(*frames, mocap)} frames")
            poses = mocap // POSES_PER_MOCAP
            if "/" in own[subject - 1] or "\\" in own[subject - 1]:
                raise ValueError(f"a sequence is called {own[subject - 1]!r:.60}")  # names become file names
            sequences.append(Sequence(subject, int(action), int(subaction), own[subject - 1], poses, (a, b, c, d)))
    sizes = {}
    for subject in SUBJECTS:
        values = [int(value) for value in _numbers(rows[-1][1 + subject])]
        if len(values) != 2 * len(CAMERAS):
            raise ValueError(f"the image sizes of S{subject} are {rows[-1][1 + subject]!r}")
        sizes[subject] = tuple(zip(values[1::2], values[::2], strict=True))  # the file has height before width
    return Metadata(tuple(sequences), sizes, w0)


def _child(root: ElementTree.Element, name: str) -> ElementTree.Element:
    found = root.find(name)
    if found is None:
        raise ValueError(f"there is no <{name}>")
    return found


def _numbers(text: str) -> list[float]:
    """Parses a matrix in MATLAB syntax: `[1002 1000;1000 1000]`."""
    return [float(word) for word in re.split(r"[\s;,]+", text.strip().strip("[]").strip()) if word]
