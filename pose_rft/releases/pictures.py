"""Pictures of a release as Records carry them: the file's own bytes, checked once to know that they decode.

Grayscale, CMYK or EXIF-bearing JPEGs pass through untouched; width and height are those of the stored pixels, to which
annotations refer (an EXIF orientation is not applied, here nor when the picture is cropped).
"""

import io
import os
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image

from pose_rft.core.record import Defect, Image
from pose_rft.io import png

MOST_PIXELS = 50_000_000  # releases stay below 5 million; a few bytes may declare any size


class UnreadablePicture(Exception):
    """The picture cannot become part of a sample; `reason` is a short phrase, the same for all such files."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def defect(self, unit: str, row: str) -> Defect:
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
        data = path.read_bytes()
    except OSError as error:
        raise UnreadablePicture("missing image", f"{path}: {error.strerror}") from None
    return parse_picture(data, path.name, size)


def parse_picture(data: bytes, name: str, size: tuple[int, int] | None = None) -> Image:
    """As `load_picture`, for bytes that come out of an archive; `name` is what a defect calls them.

    Raises:
        UnreadablePicture: empty, not a complete JPEG or PNG, or of another size than declared.
    """
    if not data:
        raise UnreadablePicture("empty image", name)
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            kind, found = picture.format, picture.size
            if found[0] * found[1] > MOST_PIXELS:
                raise UnreadablePicture("absurd size", f"{name} declares {found[0]}x{found[1]} px")
            whole = png.is_whole(data) if kind == "PNG" else None
            if whole is None:
                # To an eighth of the size: every byte is decoded and damage shows, but few pixels are computed.
                picture.draft(picture.mode, (1, 1))
                picture.load()
            elif not whole:
                raise UnreadablePicture("damaged image", f"{name} is cut or has wrong checksums")
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise UnreadablePicture("damaged image", f"{name}: {str(error).splitlines()[0]}") from None
    if kind not in ("JPEG", "PNG"):
        raise UnreadablePicture("damaged image", f"{name} is {kind}, expected JPEG or PNG")
    if size is not None and found != size:
        raise UnreadablePicture("image size", f"{name} is {found[0]}x{found[1]}, declared {size[0]}x{size[1]}")
    return Image(data, "jpg" if kind == "JPEG" else "png", *found)


def rotated_clockwise(picture: Image) -> Image:
    """The picture turned by 90° clockwise, as PNG: the one case where a release's bytes cannot be kept."""
    with PIL.Image.open(io.BytesIO(picture.data)) as image:
        pixels = np.rot90(np.asarray(image), k=-1)
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=3)
    return Image(buffer.getvalue(), "png", picture.height, picture.width)
