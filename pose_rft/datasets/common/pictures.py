"""Pictures of a release as Records carry them: the file's own bytes, checked once to know that they decode.

Grayscale, CMYK or EXIF-bearing JPEGs pass through untouched; width and height are those of the stored pixels, to which
annotations refer (an EXIF orientation is not applied, here nor when the picture is cropped). What decodes here decodes
in training: `pose_rft.io.pictures` serves both.
"""

import io
import os
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image

from pose_rft.io import door, pictures
from pose_rft.record import Defect, Image

LARGEST_FILE = 1 << 28  # bytes; a photograph of 50 million pixels as PNG stays below 200 MB


class UnreadablePicture(Exception):
    """The picture cannot become part of a sample; `reason` is a short phrase, the same for all such files."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def defect(self, unit: str, row: str) -> Defect:
        """The row of the defects table for a sample of this picture."""
        return Defect(unit, row, self.reason, self.detail)


def picture_path(folder: Path, name: str) -> Path:
    """Where a picture lies that an annotation names.

    Raises:
        UnreadablePicture: the name would lead out of the folder, or is none that a file can have.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a UTF-16 pair, as broken JSON has
        raise UnreadablePicture("unsafe name", f"{name!r:.80} is no name that a file can have") from None
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        raise UnreadablePicture("unsafe name", f"{name!r:.80} is no picture below {folder.name}")
    return folder.joinpath(*parts)


def load_picture(path: Path, size: tuple[int, int] | None = None) -> Image:
    """The file's bytes with the size of what they decode to.

    Args:
        size: (width, height) px that the annotations declare.
    Raises:
        UnreadablePicture: missing, empty, not a complete JPEG or PNG, or of another size than declared.
    """
    try:
        data = door.read_file(path, LARGEST_FILE)
    except door.Unreadable as error:
        raise UnreadablePicture("missing image", f"{path}: {error.reason}") from None
    return parse_picture(data, path.name, size)


def parse_picture(data: bytes, name: str, size: tuple[int, int] | None = None) -> Image:
    """As `load_picture`, for bytes that come out of an archive; `name` is what a defect calls them.

    Raises:
        UnreadablePicture: empty, not a complete JPEG or PNG, or of another size than declared.
    """
    if not data:
        raise UnreadablePicture("empty image", name)
    try:
        found = pictures.check(data)
    except pictures.BadPicture as error:
        raise UnreadablePicture(error.reason, f"{name} {error.what}") from None
    if size is not None and (found.width, found.height) != size:
        raise UnreadablePicture("image size", f"{name} is {found.width}x{found.height}, declared {size[0]}x{size[1]}")
    return Image(data, found.kind, found.width, found.height)


def rotated_clockwise(picture: Image) -> Image:
    """The picture turned by 90° clockwise, as PNG: the one case where a release's bytes cannot be kept."""
    pixels = np.rot90(pictures.decode(picture.data), k=-1)
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=3)
    return Image(buffer.getvalue(), "png", picture.height, picture.width)
