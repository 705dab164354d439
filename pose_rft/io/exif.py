"""How a photograph is to be turned: the one tag of EXIF that changes what a picture shows.

Releases annotate stored pixels, so conversion and training never turn a picture; `predict` turns photographs from
phones. Source: CIPA DC-008 (EXIF 2.32), sections 4.5.4 and 4.6.2; PNG keeps the same block in a chunk `eXIf`.
"""

import struct

ORIENTATION, SHORT = 0x0112, 3
UPRIGHT = 1
MOST_TAGS = 512  # a block has a few dozen


def orientation(data: bytes) -> int:
    """1 to 8 as EXIF counts (6: turn by 90° clockwise to see it upright); 1 where a JPEG or PNG does not say."""
    block = _jpeg_block(data) if data[:2] == b"\xff\xd8" else _png_block(data)
    try:
        found = _tag(block)
    except struct.error:  # the block ends early
        return UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _tag(block: bytes) -> int:
    """The orientation in a TIFF block, 0 without one."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 0
    (start,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    for entry in range(start + 2, start + 2 + 12 * min(count, MOST_TAGS), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", block, entry)
        if tag == ORIENTATION:
            return int(value) if kind == SHORT else 0
    return 0


def _jpeg_block(data: bytes) -> bytes:
    position = 2
    while data[position : position + 1] == b"\xff" and len(data) >= position + 4:
        kind, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        content = data[position + 4 : position + 2 + length]
        if kind == 0xE1 and content.startswith(b"Exif\0\0"):
            return content[6:]
        if kind == 0xDA or length < 2:  # the picture begins: no more headers
            break
        position += 2 + length
    return b""


def _png_block(data: bytes) -> bytes:
    position = 8
    while len(data) >= position + 8:
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"eXIf":
            return data[position + 8 : position + 8 + length]
        if kind == b"IEND":
            break
        position += 12 + length
    return b""
