"""What a photograph's EXIF block says: how it is to be turned, and with which lens it was taken.

Releases annotate stored pixels, so conversion and training never turn a picture; `predict` turns photographs from
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
    """The tags of a JPEG or PNG, those of the camera's own directory among them; none where there are none or they are
    damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), PilImage.open(io.BytesIO(data), formats=FORMATS) as picture:
            found = picture.getexif()
            return {**found, **found.get_ifd(CAMERA_TAGS)}
    except (*DAMAGE, OSError, SyntaxError, PilImage.DecompressionBombError):  # the pixels are fine all the same
        return {}


def orientation(data: bytes) -> int:
    """1 to 8 as EXIF counts (6: turn by 90° clockwise to see it upright); 1 where a JPEG or PNG does not say."""
    found = tags(data).get(ORIENTATION)
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT
