"""EXIF metadata of a photograph: its orientation and its lens.

Releases annotate stored pixels, so conversion and training never rotate an image; `predict` rotates photographs from
phones. Source: CIPA DC-008 (EXIF 2.32), sections 4.5.4 and 4.6; PNG keeps the same block in a chunk `eXIf`.
"""

import io
import warnings
from typing import Any

from PIL import Image as PilImage

from pose_rft.io.parsing import DAMAGE

FORMATS = ("JPEG", "PNG")
ORIENTATION, CAMERA_TAGS = 0x0112, 0x8769
UPRIGHT = 1


def tags(data: bytes) -> dict[int, Any]:
    """Returns the EXIF tags of a JPEG or PNG, including its Exif sub-directory; empty if absent or damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), PilImage.open(io.BytesIO(data), formats=FORMATS) as picture:
            found = picture.getexif()
            return {**found, **found.get_ifd(CAMERA_TAGS)}
    except (*DAMAGE, OSError, SyntaxError, PilImage.DecompressionBombError):  # the image itself is still usable
        return {}


def orientation(data: bytes) -> int:
    """Returns the EXIF orientation, 1 to 8 (6: rotate by 90° clockwise to see it upright); 1 if not given."""
    found = tags(data).get(ORIENTATION)
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT
