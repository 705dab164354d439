"""The single image decoder: training and `predict` decode what conversion accepts, to the same pixels.

It supports JPEG (including MPO, a JPEG followed by a second image) and PNG only. The size is read from the header and
bounded before anything is decoded. A JPEG must reach its end marker; data after it (motion photographs keep a video
there) is ignored. Greyscale, CMYK, palette, 16-bit and alpha images become 8-bit RGB; alpha is dropped. The EXIF
orientation is not applied, because annotations refer to stored pixels: see `io.exif`.
Sources: ITU-T T.81, annex B; PNG specification, third edition, section 5.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from pose_rft.errors import PoseRftError

MOST_PIXELS = 50_000_000  # releases stay below 5 million, phones reach 50 million; a tiny file may declare any size
MOST_SIDE = 30_000  # px; OpenCV's warps are limited to 32,767
MOST_SCANS = 100  # a progressive JPEG has about ten, and each costs a pass over all pixels
MOST_SCANNED = 1_000_000_000  # pixels, over all scans
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = 33  # bytes of the signature and the first chunk
JPEG_START, SCAN, END = b"\xff\xd8", 0xDA, 0xD9
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of the frame header, which holds the size
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
# Entropy-coded data, then each restart marker followed by data, whichever the decoder may be waiting for.
MORE_NUMBERS = b"\x5a\xc3\x96" * 20 + b"".join(b"\xff" + bytes([0xD0 + n]) + b"\x5a\xc3\x96" * 8 for n in range(8))
REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class BadPicture(PoseRftError):
    """The bytes are not a usable image; `reason`: a short phrase that is the same for all files with this problem."""

    def __init__(self, data: bytes, reason: str, what: str) -> None:
        super().__init__(f"A picture of {len(data)} bytes {what}; replace the file.")
        self.reason, self.what = reason, what


@dataclass(frozen=True)
class Header:
    """Format and size of an image before decoding; width and height refer to stored pixels."""

    kind: Literal["jpg", "png"]
    width: int
    height: int
    progressive: bool = False


def header(data: bytes) -> Header:
    """Reads the format and size of an image from its first bytes.

    Raises:
        BadPicture: not a JPEG or PNG, truncated before its size, or of an absurd size.
    """
    if data.startswith(JPEG_START):
        return _bounded(data, Header("jpg", *_jpeg_size(data)))
    if data.startswith(PNG_SIGNATURE) and data[12:16] == b"IHDR" and len(data) >= PNG_HEADER:
        return _bounded(data, Header("png", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")))
    raise _undecodable(data)


def check(data: bytes) -> Header:
    """Checks that an image decodes, and returns its header.

    Raises:
        BadPicture: as `decode`.
    """
    found = header(data)
    if found.kind == "png":
        _decoded(data, found, cv2.IMREAD_COLOR_RGB)
    else:  # at 1/8 size, every byte of a JPEG is decoded, so damage shows, but few pixels are computed
        _check_filled(data, found, _decoded(data, found, cv2.IMREAD_REDUCED_COLOR_8))
    return found


def _check_filled(data: bytes, found: Header, pixels: NDArray[np.uint8]) -> None:
    """Detects a JPEG whose data ends before its last block: libjpeg silently fills the rest with one colour.

    Extra data before the end marker changes the pixels of such an image, but not those of a complete one. `pixels`: one
    per block; if the last two differ, a non-progressive JPEG is complete.

    Raises:
        BadPicture: truncated, and closed with an end marker.
    """
    if not found.progressive and (pixels[-1, -2:][0] != pixels[-1, -1]).any():
        return
    end = _check_scans(data, found)
    shrink = 1 if found.progressive else 8  # 1/8 size shows only the first scan of a progressive JPEG
    if _quiet_pixels(data, shrink) != _quiet_pixels(data[:end] + MORE_NUMBERS + data[end:], shrink):
        raise _undecodable(data)


def _quiet_pixels(data: bytes, shrink: int) -> bytes:
    """Decodes a JPEG at 1/shrink of its size with Pillow, whose libjpeg prints no warnings to the terminal."""
    try:
        with JpegImageFile(BytesIO(data)) as picture:
            picture.draft(None, (picture.width // shrink, picture.height // shrink))
            return picture.tobytes()
    except Exception:  # e.g. bad metadata, which Pillow reads and this project does not
        return b""


def decode(data: bytes, shrink: Literal[1, 2, 4, 8] = 1) -> NDArray[np.uint8]:
    """Decodes to (H, W, 3) RGB at 1/shrink of the size.

    Raises:
        BadPicture: not a complete JPEG or PNG, damaged, or of an absurd size.
    """
    pixels = _decoded(data, header(data), REDUCED[shrink])
    return pixels if shrink == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _decoded(data: bytes, found: Header, flags: int) -> NDArray[np.uint8]:
    if found.kind == "jpg":
        _check_scans(data, found)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        raise _undecodable(data) from None
    if pixels is None:
        raise _undecodable(data)
    return pixels  # type: ignore[return-value]


def _undecodable(data: bytes) -> BadPicture:
    return BadPicture(data, "damaged image", "cannot be decoded, expected a whole JPEG or PNG")


def _bounded(data: bytes, found: Header) -> Header:
    if not found.width or not found.height:
        raise _undecodable(data)
    if found.width * found.height > MOST_PIXELS or max(found.width, found.height) > MOST_SIDE:
        limit = f"expected at most {MOST_PIXELS // 1_000_000} million and {MOST_SIDE} a side"
        raise BadPicture(data, "absurd size", f"declares {found.width}x{found.height} px, {limit}")
    return found


def _jpeg_size(data: bytes) -> tuple[int, int, bool]:
    """Returns width, height, and whether the JPEG is progressive."""
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        kind = data[position + 1] if position + 1 < len(data) else 0
        if kind in FRAMES:
            if len(data) < position + 9:
                break
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            return width, height, kind in PROGRESSIVE
        if kind in (SCAN, END):
            break
        position = _after(data, position, kind)
    raise _undecodable(data)


def _after(data: bytes, position: int, kind: int) -> int:
    """Returns where to search for the next marker after the one at `position`; segments are skipped by their length."""
    if kind == 0xFF:  # a fill byte
        return position + 1
    if kind <= 1 or 0xD0 <= kind <= END:  # a stuffed byte or a restart marker, which have no payload
        return position + 2
    return position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def _check_scans(data: bytes, found: Header) -> int:
    """Walks a JPEG's markers to its end marker, and returns the position of that.

    Raises:
        BadPicture: there is no end marker, or there are too many scans for an image of this size.
    """
    position, scans = 2, 0
    while (position := data.find(b"\xff", position)) >= 0 and position + 1 < len(data):
        kind = data[position + 1]
        if kind == 0:  # by far the most frequent
            position += 2
            continue
        if kind == END:
            return position
        if kind == SCAN:
            scans += 1
            if scans > MOST_SCANS or scans * found.width * found.height > MOST_SCANNED:
                raise BadPicture(data, "absurd size", f"has more than {scans - 1} scans, which no camera writes")
        position = _after(data, position, kind)
    raise _undecodable(data)
