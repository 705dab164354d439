"""Reads a user's photograph: upright pixels, and the focal length that its EXIF data imply.

A photograph is turned upright according to its EXIF orientation; boxes and results refer to upright pixels. In the data
set releases, by contrast, annotations refer to the pixels as stored.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_rft.errors import PoseRftError
from pose_rft.io import door, exif, pictures

FOCAL_35MM = 0xA405
LARGEST_FILE = 1 << 28  # bytes
FILM_DIAGONAL = 43.27  # mm, of 36 x 24
TURNS: dict[int, tuple[int, bool]] = {
    2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False),
}  # fmt: skip
"""EXIF orientation: quarter turns counter-clockwise, then mirrored left to right."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """pixels (H, W, 3) uint8 RGB, upright. focal: focal length, px; `focal_source` says where it comes from."""

    path: Path
    pixels: NDArray[np.uint8]
    focal: float
    focal_source: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) px."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def K(self) -> NDArray[np.float64]:
        """Intrinsics (3, 3) px, with the principal point at the picture's centre."""
        width, height = self.size
        return np.array([[self.focal, 0, width / 2], [0, self.focal, height / 2], [0, 0, 1.0]])


def read_photograph(path: Path) -> Photograph:
    """Reads a picture file and turns it upright.

    Raises:
        PoseRftError: there is no such file, or it is not a complete JPEG or PNG; the message names it.
    """
    data = file_bytes(path)
    try:
        pictures.check(data)
        pixels = pictures.decode(data)
    except PoseRftError as error:
        raise PoseRftError(f"{path}: {error}") from None
    turns, mirrored = TURNS.get(exif.orientation(data), (0, False))
    pixels = np.rot90(pixels, turns)
    pixels = np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)
    focal, source = focal_length(exif.tags(data), pixels.shape[1], pixels.shape[0])
    return Photograph(path, pixels, focal, source)


def file_bytes(path: Path) -> bytes:
    """Reads a picture file without checking its format.

    Raises:
        PoseRftError: there is no such file, it cannot be read, or it is empty.
    """
    try:
        data = door.read_file(path, LARGEST_FILE)
    except door.Unreadable as error:
        raise PoseRftError(f"{path} cannot be read ({error.reason}); give a JPEG or PNG.") from None
    if not data:
        raise PoseRftError(f"{path} is empty, expected a JPEG or PNG.")
    return data


def focal_length(tags: dict[int, Any], width: int, height: int) -> tuple[float, str]:
    """Returns (focal length px, where it comes from): EXIF's 35 mm equivalent, or a guess.

    The actual focal length in mm is of no use without the sensor's size, which EXIF does not hold.
    Source: EXIF 2.32, tag FocalLengthIn35mmFilm; the diagonals of film and picture correspond.
    """
    diagonal = float(np.hypot(width, height))
    try:
        millimetres = float(Fraction(str(tags.get(FOCAL_35MM, 0))))
    except (ValueError, ZeroDivisionError):
        millimetres = 0.0
    if 8 <= millimetres <= 2000:
        return diagonal * millimetres / FILM_DIAGONAL, f"EXIF: {millimetres:g} mm on 35 mm film"
    return diagonal, "a guess: one picture diagonal (53 degrees of view)"


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes (H, W, 3) RGB as a PNG."""
    ok, encoded = cv2.imencode(".png", pixels[..., ::-1])
    assert ok
    return encoded.tobytes()
