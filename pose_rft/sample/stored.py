"""Uncompressed PNG and .npz files, written field by field.

Compressed bytes depend on the machine's zlib build and zip headers on the Python version, but the sample must be
identical on every machine. Sources: PNG specification, third edition, section 5; RFC 1950 and 1951 (stored blocks).
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

BLOCK = 65_535  # bytes in a stored deflate block
TRUE_COLOUR = 2
ZIP_TIME, FILE_MODE, UNIX = (1980, 1, 1, 0, 0, 0), 0o600 << 16, 3


def png(image: np.ndarray) -> bytes:
    """Encodes an RGB image, (H, W, 3) uint8."""
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)  # filter 0: none
    header = struct.pack(">2I5B", width, height, 8, TRUE_COLOUR, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", _zlib_stream(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Same content as `np.savez`, object arrays included, but independent of time and machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=True)
            member = zipfile.ZipInfo(f"{name}.npy", ZIP_TIME)
            member.create_system, member.external_attr = UNIX, FILE_MODE
            archive.writestr(member, content.getvalue())
    return buffer.getvalue()


def _zlib_stream(data: bytes) -> bytes:
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)] or [b""]
    body = b"".join(
        struct.pack("<BHH", number == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks)
    )
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(data))
