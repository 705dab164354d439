"""Human3.6M without its videos: the frames and arrays that MMPose's preprocessing extracts.

`images/S1/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg` is frame 0: file numbers start at 1, or at 0 if
a video has a file with number 0. `annotation_body3d/fps10/h36m_{train,test}.npz` (every fifth frame; `fps50`: every
frame) holds `imgname` (such a path, below `images`), `part` (N, 17, 3) px + 1 and `S` (N, 17, 4) metres in the camera
frame + 1: the 17 moving joints of the CDF files' 32, in 2D with the same lens distortion. Its `cameras.pkl` repeats
the cameras of metadata.xml. Source: open-mmlab/mmpose tools/dataset_converters/preprocess_h36m.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pose_rft.body.joints import H36M17
from pose_rft.errors import PoseRftError
from pose_rft.io.npz import read_npz

IMAGES = "images"
ARRAYS = "annotation_body3d/fps*/h36m_{split}.npz"
NUMBER = re.compile(r"_([0-9]+)\.jpe?g$", re.IGNORECASE)
FULL_RATE = 50  # frames per second of the videos


@dataclass(frozen=True, eq=False)
class Poses:
    """N frames of one video: `row_of` each frame; joints2d (N, 17, 2) px, joints3d (N, 17, 3) metres, camera frame."""

    row_of: Mapping[int, int]
    joints2d: np.ndarray
    joints3d: np.ndarray


def video_stem(subject: int, name: str, camera: str) -> str:
    """Returns the video's name in MMPose's files: `S1_Directions_1.54138969` for the sequence `Directions 1`."""
    return f"S{subject}_{name.replace(' ', '_')}.{camera}"


def frames_folder(root: Path, subject: int, stem: str) -> Path:
    """Returns the folder of a video's extracted frames."""
    return root / IMAGES / f"S{subject}" / stem


def extracted_frames(folder: Path) -> dict[int, Path]:
    """Returns the images of a video by frame index, counted from 0."""
    numbered = {
        int(match[1]): path for path in folder.iterdir() if (match := NUMBER.search(path.name)) and path.is_file()
    }
    first = 0 if 0 in numbered else 1
    return {number - first: path for number, path in numbered.items()}


def array_files(root: Path, split: str) -> dict[int, Path]:
    """Returns the files of a split (`train` or `test`) by their frame step."""
    found = {}
    for path in sorted(root.glob(ARRAYS.format(split=split))):
        rate = path.parent.name.removeprefix("fps")
        if rate.isdecimal() and 0 < int(rate) <= FULL_RATE:
            found[FULL_RATE // int(rate)] = path
    return found


def read_poses(root: Path, split: str, every: int, stem: str) -> Poses | None:
    """Reads a video's poses from the coarsest file with every `every`-th frame; None without a file or this video.

    Raises:
        PoseRftError: a file is damaged, or no file has the requested frames.
    """
    files = array_files(root, split)
    if not files:
        return None
    steps = [step for step in files if every % step == 0]
    if not steps:
        raise PoseRftError(
            f"{next(iter(files.values()))} holds every {min(files)}th frame; set `datasets.h36m.every` to a multiple."
        )
    path = files[max(steps)]
    status = path.stat()
    return _by_video(path, status.st_mtime_ns, status.st_size).get(stem)


@lru_cache(maxsize=1)  # a worker reads videos of one split only
def _by_video(path: Path, modified: int, size: int) -> Mapping[str, Poses]:
    content = read_npz(path, ["imgname", "part", "S"])
    try:
        names = [str(name) for name in content["imgname"].tolist()]
        count, joints = len(names), len(H36M17)
        points2d = np.asarray(content["part"], np.float64).reshape(count, joints, 3)
        points3d = np.asarray(content["S"], np.float64).reshape(count, joints, 4)
        rows: dict[str, dict[int, int]] = {}
        for row, name in enumerate(names):
            number = NUMBER.search(name)
            if number is None:
                raise ValueError(f"row {row} is called {name!r:.60}")
            stem = name[: number.start()].rpartition("/")[2]
            rows.setdefault(stem, {})[int(number[1])] = row
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is no h36m npz of MMPose ({type(error).__name__}: {' '.join(str(error).split())[:120]}); expected "
            "imgname, part (N, 17, 3) and S (N, 17, 4), as its preprocess_h36m.py writes them."
        ) from None
    found = {}
    for stem, of_video in rows.items():
        first, order = 0 if 0 in of_video else 1, list(of_video.values())
        row_of = {number - first: place for place, number in enumerate(of_video)}
        found[stem] = Poses(row_of, points2d[order, :, :2], points3d[order, :, :3])
    return found
