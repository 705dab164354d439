"""One decoder and one rule for pictures: conversion, training and predict accept the same bytes."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture, parse_picture
from pose_rft.io import pictures
from pose_rft.io.exif import orientation
from pose_rft.policy.person_crops import Square, crop, size_of


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)  # type: ignore[return-value]


def encoded(mode: str = "RGB", kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image = PIL.Image.fromarray(picture())
    if mode == "I;16":
        image = PIL.Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    else:
        image = image.quantize(256) if mode == "P" else image.convert(mode)
    image.save(file, kind, **options)
    return file.getvalue()


def mpo() -> bytes:
    file = io.BytesIO()
    image = PIL.Image.fromarray(picture())
    image.save(file, "MPO", save_all=True, append_images=[image.resize((30, 20))])
    return file.getvalue()


def with_orientation(value: int, kind: str = "JPEG") -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    return encoded(kind=kind, exif=exif)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_text_of_3_mb() -> bytes:
    data, text = encoded(kind="PNG"), chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))
    return data[:33] + text + data[33:]


GOOD = {
    "JPEG": encoded(),
    "grey": encoded("L"),
    "CMYK": encoded("CMYK"),
    "progressive": encoded(progressive=True),
    "MPO": mpo(),  # C9
    "4 KB behind its end": encoded() + bytes(4000),  # A8
    "a video behind its end": encoded() + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40,  # A8
    "a preview inside": encoded(exif=b"Exif\0\0" + encoded()),
    "turned": with_orientation(6),  # A2
    "PNG": encoded(kind="PNG"),
    "PNG grey": encoded("L", "PNG"),
    "PNG palette": encoded("P", "PNG"),
    "PNG 1 bit": encoded("1", "PNG"),
    "PNG 16 bit": encoded("I;16", "PNG"),
    "PNG alpha": encoded("RGBA", "PNG"),
    "PNG with a long text": with_text_of_3_mb(),  # B5
}


@pytest.mark.parametrize("name", GOOD)
def test_what_conversion_accepts_the_others_decode_at_every_size(name: str) -> None:
    data = GOOD[name]
    image = parse_picture(data, name)
    assert (image.width, image.height) == size_of(data) == (90, 60)
    assert image.data is data and image.extension == ("png" if name.startswith("PNG") else "jpg")
    for shrink in (1, 2, 4, 8):
        height, width, channels = pictures.decode(data, shrink).shape
        assert channels == 3 and abs(height - 60 / shrink) <= 1 and abs(width - 90 / shrink) <= 1
    assert crop(data, Square(0, 0, 60), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("name", ["CMYK", "MPO", "turned", "PNG palette", "PNG alpha", "4 KB behind its end"])
def test_every_form_of_a_picture_shows_the_same_unturned_colours(name: str) -> None:
    difference = np.abs(pictures.decode(GOOD[name]).astype(int) - picture())
    assert difference.mean() < 6


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def declares(width: int, height: int) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
    )


def jpeg_that_declares(width: int, height: int) -> bytes:
    data = bytearray(encoded())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n"
GIF = io.BytesIO()
PIL.Image.new("RGB", (9, 9)).save(GIF, "GIF")
BAD = {
    "half": encoded()[: len(encoded()) // 2],
    "half with a preview": encoded(exif=b"Exif\0\0" + encoded())[:-1000],
    "without its end": encoded()[:-2],
    "EPS": EPS,  # S4
    "GIF": GIF.getvalue(),
    "TIFF": b"II*\0" + bytes(100),
    "text": b"hello",
    "one byte": b"\xff",
    "a start": b"\xff\xd8",
    "half a PNG": encoded(kind="PNG")[:-200],
    "PNG without its end": encoded(kind="PNG")[:-12],
    "PNG with another checksum": encoded(kind="PNG")[:-20] + bytes(8) + encoded(kind="PNG")[-12:],
    "PNG of no width": declares(0, 10),
    "3,000 scans": scans(3000),  # S12
    "200 million pixels": declares(20_000, 10_000),  # B5
    "200 million pixels as JPEG": jpeg_that_declares(20_000, 10_000),  # B5
    "60,000 x 1": declares(60_000, 1),  # S21
}


@pytest.mark.parametrize("name", BAD)
def test_what_conversion_refuses_training_and_predict_refuse_with_the_same_words(name: str) -> None:
    with pytest.raises(UnreadablePicture) as at_conversion:
        parse_picture(BAD[name], "a.jpg")
    for read in (pictures.check, pictures.decode, lambda data: crop(data, Square(0, 0, 60), 16)):
        with pytest.raises(pictures.BadPicture) as error:
            read(BAD[name])
        assert error.value.reason == at_conversion.value.reason
        assert at_conversion.value.detail == f"a.jpg {error.value.what}" and str(error.value).endswith(
            "replace the file."
        )


def test_every_cut_and_every_changed_byte_of_a_png_is_noticed() -> None:
    data, rng = encoded(kind="PNG"), np.random.default_rng(1)
    for length in range(0, len(data), 211):
        with pytest.raises(pictures.BadPicture):
            pictures.check(data[:length])
    for place in rng.integers(8, len(data) - 4, 60):
        broken = bytearray(data)
        broken[place] ^= int(rng.integers(1, 256))
        if broken[37:41] == data[37:41]:  # a chunk of another name may be one that readers pass over
            with pytest.raises(pictures.BadPicture):
                pictures.check(bytes(broken))


def test_every_cut_of_a_jpeg_is_noticed() -> None:
    for data in (encoded(), encoded(progressive=True), encoded(exif=b"Exif\0\0" + encoded())):
        for length in range(0, len(data), 97):
            with pytest.raises(pictures.BadPicture):
                pictures.check(data[:length])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_orientation_is_read_and_nothing_that_is_damaged_turns_a_picture(kind: str) -> None:
    for value in range(1, 9):
        assert orientation(with_orientation(value, kind)) == value
    assert orientation(encoded(kind=kind)) == 1
    data, rng = with_orientation(6, kind), np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data[: int(rng.integers(len(data)))] if rng.random() < 0.5 else data)
        for place in rng.integers(max(len(broken), 1), size=4):
            if place < len(broken):
                broken[place] = int(rng.integers(256))
        assert 1 <= orientation(bytes(broken)) <= 8


@pytest.mark.parametrize("name", ["ok", "pad4k", "phone6"])
def test_a_file_on_disk_is_the_same_picture(tmp_path: Path, name: str) -> None:
    content = {"ok": encoded(), "pad4k": encoded() + bytes(4096), "phone6": with_orientation(6)}[name]
    (tmp_path / "a.jpg").write_bytes(content)
    assert load_picture(tmp_path / "a.jpg", (90, 60)).data == content
    with pytest.raises(UnreadablePicture, match="declared 9x6"):
        load_picture(tmp_path / "a.jpg", (9, 6))


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restarts", [0, 3])
def test_half_a_jpeg_with_an_end_marker_behind_it_is_damaged(progressive: int, restarts: int) -> None:
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8), (0, 0), 2)
    pixels[100:] = pixels[-1, -1]  # a plain ground is no damage
    settings = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restarts]
    whole = cv2.imencode(".jpg", pixels, settings)[1].tobytes()
    start = whole.index(b"\xff\xda") + 20
    assert pictures.check(whole) and pictures.check(whole + bytes(4000))
    for part in (0.1, 0.3, 0.5):
        half = whole[: start + int(part * (len(whole) - start))].rstrip(b"\xff")
        with pytest.raises(pictures.BadPicture):
            pictures.check(half + b"\xff\xd9")
