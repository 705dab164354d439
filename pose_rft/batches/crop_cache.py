"""All crops of a folder of shards, decoded once into one uint8 array in scratch.

The pose encoder, the CLIP stand-in and the feature cache read the same crops, plain and mirrored, many times; JPEG
decoding would be most of their work. Meant for small data: N · P · P · 3 bytes.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pose_rft.batches.cached_folder import cached_folder
from pose_rft.batches.samples import Samples
from pose_rft.errors import PoseRftError
from pose_rft.io.mapped import new_array, open_array
from pose_rft.policy.person_crops import Square, crop, normalise
from pose_rft.progress import Progress
from pose_rft.record import Record

READERS = 4
CHUNK = 256
FORM = 1  # version of the cached files; increment it when their content changes

Crops = NDArray[np.uint8]
Norm = tuple[tuple[float, ...], tuple[float, ...]]


def square_of(record: Record, scale: float) -> Square:
    """The square that a crop of this record shows: its box enlarged by `scale`, or the whole image."""
    assert record.image is not None
    return Square.around(record.box, (record.image.width, record.image.height), scale)


def load_crops(samples: Samples, size: int, scale: float, cache: Path) -> Crops:
    """(N, size, size, 3) RGB, memory-mapped, in the order of `samples`; black where a sample has no image.

    Args:
        size: px. scale: side of the square relative to the person's box. cache: folder for all sets.
    Raises:
        PoseRftError: an image cannot be decoded or a shard is damaged; the message names the sample.
    """
    name = f"{samples.shards.fingerprint[:24]}-{size}-{scale:g}-{FORM}"
    folder = cached_folder(cache / name, lambda temporary: _write(temporary / "crops.npy", samples, size, scale))
    return open_array(folder / "crops.npy")


def _write(path: Path, samples: Samples, size: int, scale: float) -> None:
    rows = samples.has_image.nonzero()[:, 0].tolist()
    label = f"cropping {samples.name}"
    with (
        new_array(path, np.uint8, (len(samples), size, size, 3)) as crops,
        ThreadPoolExecutor(READERS) as pool,
        Progress(label, len(rows), "pictures") as progress,
    ):

        def cut(row: int) -> None:
            crops[row] = crop_of(samples.shards.record(row), size, scale)

        for first in range(0, len(rows), CHUNK):
            chunk = rows[first : first + CHUNK]
            list(pool.map(cut, chunk))
            progress.advance(len(chunk))


def crop_of(record: Record, size: int, scale: float, flip: bool = False) -> Crops:
    """(size, size, 3) RGB.

    Raises:
        PoseRftError: the image cannot be decoded; the message names the sample.
    """
    assert record.image is not None
    try:
        return crop(record.image.data, square_of(record, scale), size, flip)
    except PoseRftError as error:
        raise PoseRftError(f"Sample {record.key} of {record.dataset}: {error}") from None


def pixels(crops: Crops, rows: list[int] | NDArray[np.integer], norm: Norm, flip: bool = False) -> Tensor:
    """The crops at `rows` as network input: normalised, (B, 3, P, P) float32, mirrored if `flip`."""
    chosen = crops[rows]
    return normalise(chosen[:, :, ::-1] if flip else chosen, norm)
