"""What every reader of a release offers, and the few things that all readers do alike.

A release is planned from its annotation indices (`units`) before any picture is decoded; a unit (a whole video, or one
image with all its persons) is then read to `Record`s, or to `Defect`s where a sample is missing or damaged.
A unit never gives fewer rows than it promised: what cannot be read is a Defect, so nothing shifts.
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
    """One piece of work that a worker reads by itself.

    key: unique in its split, sortable, `[A-Za-z0-9_-]+`. expected: how many samples it should give.
    payload: picklable, of the release's own kind.
    """

    key: str
    expected: int
    payload: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise PoseRftError(f"Unit key {self.key!r} may hold only letters, digits, _ and -.")


class ReaderParams(Protocol):
    """What the sections of all readers (`datasets.NAME`) have in common."""

    @property
    def splits(self) -> Sequence[str]:
        """The splits to convert."""
        ...

    @property
    def max_defect_rate(self) -> float:
        """The share of samples that may be defects before the conversion stops."""
        ...


class DatasetReader(Protocol):
    """A data set on disk, constructed as `Reader(root, params, body_model, jpeg_quality)`.

    root: `data.root`, the folder of all releases; params: the reader's own section, whose type is `Reader.Params`;
    body_model: `data.body_model`; jpeg_quality: for frames of videos, which are encoded once. Constructed in each
    worker, so instances are picklable and open no file when constructed.
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
        """The unit's samples in a fixed order; a frame that is missing is a Defect."""
        ...

    def inventory(self) -> list[Path]:
        """The files (absolute, sorted) that the conversion depends on."""
        ...


class Reader:
    """What the readers hold: the release's folder (or an absolute `root` of its own) and what `DatasetReader` has."""

    def __init__(self, root: Path, params: Any, body_model: Path, jpeg_quality: int) -> None:
        self.data_root = root
        self.root = root / params.root
        self.params = params
        self.body_model = body_model
        self.jpeg_quality = jpeg_quality


def rows_of(release: DatasetReader, unit: Unit, split: str) -> Iterator[Record | Defect]:
    """What `release.read` gives; records that cannot be samples (`Record.problem`) are defects, whoever read them."""
    for row in release.read(unit, split):
        problem = row.problem if isinstance(row, Record) else None
        yield row if problem is None else Defect(unit.key, row.key, *problem)  # type: ignore[union-attr]


def sample_key(*parts: str | int) -> str:
    """Parts joined by `_`, integers zero-filled to six digits, everything outside `[A-Za-z0-9-]` made `-`.

    WebDataset cuts a key at its first dot, and H36M's stems hold dots and spaces: keys hold neither.
    """

    def text(part: str | int) -> str:
        return f"{part:06d}" if isinstance(part, int) else re.sub(r"[^A-Za-z0-9-]+", "-", part).strip("-")

    return "_".join(filter(None, map(text, parts)))


def box_around(points: np.ndarray, scale: float, convention: str) -> Box:
    """Square box around 2D points.

    Args:
        points: (J, 2) px, the points to enclose; confidence is the caller's business.
        scale: the longer side of the tight box times this is the side.
    Raises:
        ValueError: no point.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) == 0:
        raise ValueError("a box needs at least one point")
    low, high = points.min(axis=0), points.max(axis=0)
    return square_box(float(low[0]), float(low[1]), float(high[0]), float(high[1]), scale, convention)


def square_box(x0: float, y0: float, x1: float, y1: float, scale: float, convention: str) -> Box:
    """Square box with the centre of (x0, y0, x1, y1) px and `scale` times its longer side (at least 1 px)."""
    side = max(scale * float(max(x1 - x0, y1 - y0)), 1.0)
    return Box((round(float(x0 + x1) / 2, 3), round(float(y0 + y1) / 2, 3)), round(side, 3), convention)


def existing_files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """The files under `root` that match any of the glob patterns (see `io.find`), sorted, each once."""
    found = {path for pattern in patterns for path in find(root, pattern) if path.is_file()}
    return sorted(found, key=lambda path: path.parts)  # the order of paths, without comparing path with path


def require(path: Path, dataset: str, where_to_get: str) -> Path:
    """`path` if it exists.

    Raises:
        PoseRftError: it does not; the sentence says what is missing and where to get it.
    """
    if not path.exists():
        raise PoseRftError(f"{dataset}: {path} does not exist; get it from {where_to_get} and set `data.root`.")
    return path


def check_split(split: str, allowed: Iterable[str], dataset: str) -> str:
    """`split` if the release has it.

    Raises:
        PoseRftError: it does not.
    """
    allowed = tuple(allowed)
    if split not in allowed:
        raise PoseRftError(f"{dataset} has no split {split!r}; choose from {', '.join(allowed)} under `datasets`.")
    return split


class Incomplete(Exception):
    """The rest of a unit's samples cannot be read: the reader turns each of them into a Defect with this reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def with_confidence(points: np.ndarray) -> np.ndarray:
    """(J, C) labelled points → (J, C + 1) with confidence 1."""
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def sampled_pictures(path: Path, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """The wanted frames (ascending) of a video, as (H, W, 3) uint8 BGR.

    Raises:
        Incomplete: the video is missing, damaged, or ends too early; also when more is asked for.
    """
    from pose_rft.io import video  # its codecs take longer to import than the whole inventory stage needs

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
