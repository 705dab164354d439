"""Fast square crops around a person, from encoded bytes to normalised pixels.

Both encoders use the same square, so their token grids cover the same image region. Pixels outside the image are black
(HMR2.0's border). JPEG is decoded at the smallest scale of 1, 1/2, 1/4, 1/8 that keeps the crop's resolution.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor

from pose_rft.errors import PoseRftError
from pose_rft.io import pictures
from pose_rft.record import Box

SMALLEST, FARTHEST = 1e-3, 1e6  # px
SHRINKS: tuple[Literal[8, 4, 2, 1], ...] = (8, 4, 2, 1)
Picture = bytes | PilImage.Image | NDArray[np.uint8]
"""Encoded JPEG or PNG, a PIL image, or (H, W, 3) RGB."""


@dataclass(frozen=True)
class Square:
    """The part of an image that a crop shows: left, top, side in px; the first pixel covers [0, 1)."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, box: Box | None, size: tuple[int, int], scale: float) -> "Square":
        """The box enlarged by `scale`, or without a box the whole image of `size` (width, height)."""
        if box is None:
            side = float(max(size))
            return cls(size[0] / 2 - side / 2, size[1] / 2 - side / 2, side)
        side = box.side * scale
        return cls(box.center[0] - side / 2, box.center[1] - side / 2, side)

    def to_crop(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 2) px in the image → crop coordinates, in [-1, 1] inside the crop."""
        return (points - np.array([self.left, self.top])) / self.side * 2 - 1

    def to_picture(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Inverse of `to_crop`."""
        return (points + 1) / 2 * self.side + np.array([self.left, self.top])


def size_of(picture: Picture) -> tuple[int, int]:
    """(width, height) in px; for bytes, only the header is read.

    Raises:
        PoseRftError: not an image.
    """
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    if isinstance(picture, PilImage.Image):
        return picture.size
    found = pictures.header(picture)
    return found.width, found.height


def crop(picture: Picture, square: Square, size: int, flip: bool = False) -> NDArray[np.uint8]:
    """(size, size, 3) RGB; mirrored left to right if `flip`.

    Raises:
        PoseRftError: the bytes are empty, truncated, or not an image; or the square has no area.
    """
    if not SMALLEST < square.side < FARTHEST:
        raise PoseRftError(f"A person's box has side {square.side} px, expected more than 0; correct the box.")
    if not max(abs(square.left), abs(square.top)) < FARTHEST:
        raise PoseRftError(
            f"A person's box lies at ({square.left}, {square.top}) px, far from any picture; correct it."
        )
    shrink = max(1, int(square.side / size))
    if isinstance(picture, bytes):
        shrink = next(n for n in SHRINKS if n <= shrink)
        pixels = pictures.decode(picture, shrink)
    else:
        pixels = np.asarray(picture.convert("RGB")) if isinstance(picture, PilImage.Image) else picture
        if shrink > 1:  # average, so that the bilinear step below skips no pixel
            height, width = (n // shrink * shrink for n in pixels.shape[:2])
            small = (max(1, width // shrink), max(1, height // shrink))
            pixels = cv2.resize(pixels[:height, :width], small, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    zoom = size / square.side * shrink
    left, top = square.left / shrink, square.top / shrink
    turn = np.array([[zoom, 0, zoom * (0.5 - left) - 0.5], [0, zoom, zoom * (0.5 - top) - 0.5]])
    if flip:
        turn[0] = -turn[0] + np.array([0, 0, size - 1])
    return cv2.warpAffine(pixels, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)  # type: ignore[return-value]


def normalise(crops: NDArray[np.uint8], norm: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """(..., S, S, 3) RGB → (..., 3, S, S) float32, (value / 255 − mean) / deviation."""
    mean, deviation = (np.array(values, np.float32) for values in norm)
    channels_first = np.moveaxis(crops, -1, -3)
    scale, shift = 1 / (255 * deviation), -mean / deviation
    scaled = np.multiply(channels_first, scale[:, None, None], dtype=np.float32, order="C")
    scaled += shift[:, None, None]
    return torch.from_numpy(scaled)
