"""The interface of every reader, and helpers that the readers share.

A conversion is planned from a release's annotation indices (`units`) before any image is decoded. A unit (a whole
video, or one image with all its people) is then read into `Record`s, or `Defect`s where a sample is missing or damaged.
A unit never yields fewer rows than planned: each unreadable sample becomes a Defect, so later rows keep their position.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pose_rft.errors import PoseRftError
from pose_rft.io.find import find
from pose_rft.record import KEY, Box, Defect, Record


@dataclass(frozen=True)
class Unit:
    """A piece of work that one worker reads independently.

    key: unique in its split, sortable, `[A-Za-z0-9_-]+`. expected: number of samples that it should yield.
    payload: picklable, its content specific to the reader.
    """

    key: str
    expected: int
    payload: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise PoseRftError(f"Unit key {self.key!r} may hold only letters, digits, _ and -.")


class ReaderParams(Protocol):
    """Parameters that all readers (`datasets.NAME`) have."""

    @property
    def splits(self) -> Sequence[str]:
        """The splits to convert."""
        ...

    @property
    def max_defect_rate(self) -> float:
        """The largest fraction of defects; above it the conversion stops."""
        ...


class DatasetReader(Protocol):
    """A data set on disk, constructed as `Reader(root, params, body_model, jpeg_quality)`.

    root: `data.root`, the folder of all releases; params: the reader's own section, whose type is `Reader.Params`;
    body_model: `data.body_model`; jpeg_quality: for video frames, which are encoded once. Every worker constructs its
    own reader, so instances must be picklable and constructors must not open files.
    """

    dataset: str
    licence: str
    where_to_get: str

    @property
    def params(self) -> ReaderParams:
        """The reader's own section of params.yaml."""
        ...

    def units(self, split: str) -> list[Unit]:
        """The split's units sorted by key; reads annotation indices only, decodes no image."""
        ...

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        """The unit's samples in a fixed order; a missing frame is a Defect."""
        ...

    def inventory(self) -> list[Path]:
        """The files (absolute, sorted) that the conversion depends on."""
        ...


class Reader:
    """Base class of the readers; `root` is the release's folder, below the data root or absolute."""

    def __init__(self, root: Path, params: Any, body_model: Path, jpeg_quality: int) -> None:
        self.data_root = root
        self.root = root / params.root
        self.params = params
        self.body_model = body_model
        self.jpeg_quality = jpeg_quality


def rows_of(release: DatasetReader, unit: Unit, split: str) -> Iterator[Record | Defect]:
    """Yields the rows of `release.read`; replaces every invalid record (see `Record.problem`) by a defect."""
    for row in release.read(unit, split):
        problem = row.problem if isinstance(row, Record) else None
        yield row if problem is None else Defect(unit.key, row.key, *problem)  # type: ignore[union-attr]


def sample_key(*parts: str | int) -> str:
    """Joins the parts with `_`; zero-pads integers to six digits, replaces all else outside `[A-Za-z0-9-]` by `-`.

    WebDataset ends a key at the first dot, and file names in H36M contain dots and spaces, so keys contain neither.
    """

    def text(part: str | int) -> str:
        return f"{part:06d}" if isinstance(part, int) else re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-")

    return "_".join(filter(None, map(text, parts)))


def box_around(points: np.ndarray, scale: float, convention: str) -> Box:
    """Square box around 2D points.

    Args:
        points: (J, 2) px, the points to enclose; the caller removes points without confidence.
        scale: the square's side over the longer side of the tight box.
    Raises:
        ValueError: there are no points.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) == 0:
        raise ValueError("a box needs at least one point")
    low, high = points.min(axis=0), points.max(axis=0)
    return square_box(float(low[0]), float(low[1]), float(high[0]), float(high[1]), scale, convention)


def square_box(x0: float, y0: float, x1: float, y1: float, scale: float, convention: str) -> Box:
    """Square box at the centre of (x0, y0, x1, y1) px, its side `scale` times the longer side (at least 1 px)."""
    side = max(scale * float(max(x1 - x0, y1 - y0)), 1.0)
    return Box((round(float(x0 + x1) / 2, 3), round(float(y0 + y1) / 2, 3)), round(side, 3), convention)


def existing_files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """Returns the files under `root` that match any of the glob patterns (see `io.find`), sorted, no duplicates."""
    found = {path for pattern in patterns for path in find(root, pattern) if path.is_file()}
    return sorted(found, key=lambda path: path.parts)  # same order as of paths, but faster to compare


def require(path: Path, dataset: str, where_to_get: str) -> Path:
    """Returns `path` if it exists.

    Raises:
        PoseRftError: it does not; the message says what is missing and where to get it.
    """
    if not path.exists():
        raise PoseRftError(f"{dataset}: {path} does not exist; get it from {where_to_get} and set `data.root`.")
    return path


def check_split(split: str, allowed: Iterable[str], dataset: str) -> str:
    """Returns `split` if the release has it.

    Raises:
        PoseRftError: it does not.
    """
    allowed = tuple(allowed)
    if split not in allowed:
        raise PoseRftError(f"{dataset} has no split {split!r}; choose from {', '.join(allowed)} under `datasets`.")
    return split


class Incomplete(Exception):
    """The remaining samples of a unit cannot be read; the reader turns each into a Defect with this reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def with_confidence(points: np.ndarray) -> np.ndarray:
    """Appends confidence 1 to labelled points: (J, C) → (J, C + 1)."""
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def sampled_pictures(path: Path, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the wanted frames (ascending) of a video as (H, W, 3) uint8 BGR.

    Raises:
        Incomplete: the video is missing, damaged or too short, or the caller asks for more than the wanted frames.
    """
    from pose_rft.io import video  # importing its codecs takes longer than the whole inventory stage

    if not path.is_file():
        raise Incomplete("missing video", f"{path} does not exist")
    done = 0
    try:
        for _, picture in video.frames(path, wanted):
            yield picture
            done += 1
    except PoseRftError as error:
        raise Incomplete("damaged video", str(error)) from None
    raise Incomplete("short video", f"{path} ends before frame {wanted[min(done, len(wanted) - 1)]}")
