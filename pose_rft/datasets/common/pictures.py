"""Loads images as Records store them: the original bytes of the file, decoded once to check them.

Grayscale, CMYK and EXIF-tagged JPEGs pass through unchanged. Width and height are those of the stored pixels, to which
annotations refer; EXIF orientation is applied neither here nor in cropping. An image that decodes here also decodes in
training, because both use `pose_rft.io.pictures`.
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
    """The image cannot be used in a sample; `reason` is a short phrase, the same for every file with this problem."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def defect(self, unit: str, row: str) -> Defect:
        """Returns the defects-table row for a sample of this image."""
        return Defect(unit, row, self.reason, self.detail)


def picture_path(folder: Path, name: str) -> Path:
    """Returns the path of an image that an annotation names.

    Raises:
        UnreadablePicture: the name points outside the folder, or is not a valid file name.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # a lone UTF-16 surrogate, as in broken JSON
        raise UnreadablePicture("unsafe name", f"{name!r:.80} is no name that a file can have") from None
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        raise UnreadablePicture("unsafe name", f"{name!r:.80} is no picture below {folder.name}")
    return folder.joinpath(*parts)


def load_picture(path: Path, size: tuple[int, int] | None = None) -> Image:
    """Returns the file's bytes and the decoded size.

    Args:
        size: (width, height) px that the annotations declare.
    Raises:
        UnreadablePicture: missing, empty, not a complete JPEG or PNG, or not of the declared size.
    """
    try:
        data = door.read_file(path, LARGEST_FILE)
    except door.Unreadable as error:
        raise UnreadablePicture("missing image", f"{path}: {error.reason}") from None
    return parse_picture(data, path.name, size)


def parse_picture(data: bytes, name: str, size: tuple[int, int] | None = None) -> Image:
    """Does the same as `load_picture` for bytes from an archive; `name` identifies them in a defect.

    Raises:
        UnreadablePicture: empty, not a complete JPEG or PNG, or not of the declared size.
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
    """Rotates the image by 90° clockwise and encodes it as PNG, the only case where the original bytes are not kept."""
    pixels = np.rot90(pictures.decode(picture.data), k=-1)
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=3)
    return Image(buffer.getvalue(), "png", picture.height, picture.width)
