"""What a decoder refuses is not whole; what is whole decodes."""

import io

import numpy as np
import PIL.Image
import pytest

from pose_rft.io import png


def encoded(mode: str = "RGB", size: tuple[int, int] = (33, 21), **options) -> bytes:
    channels = len(PIL.Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 60, (size[1], size[0], channels), np.uint8).squeeze()
    file = io.BytesIO()
    PIL.Image.fromarray(pixels, mode).save(file, "PNG", **options)
    return file.getvalue()


def decodes(data: bytes) -> bool:
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            picture.load()
        return True
    except (OSError, SyntaxError, ValueError):
        return False


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_whole_pictures_are_whole(mode: str, level: int) -> None:
    assert png.is_whole(encoded(mode, compress_level=level)) is True


def test_large_pictures_of_many_chunks_are_whole() -> None:
    assert png.is_whole(encoded(size=(800, 500), compress_level=1)) is True


@pytest.mark.parametrize("mode", ["P", "1", "I;16"])
def test_other_forms_are_left_to_a_decoder(mode: str) -> None:
    file = io.BytesIO()
    PIL.Image.new(mode, (9, 7)).save(file, "PNG")
    assert png.is_whole(file.getvalue()) is None


def test_every_cut_is_noticed() -> None:
    data = encoded()
    assert not any(png.is_whole(data[:length]) for length in range(len(data)))


def test_every_changed_byte_is_noticed_and_nothing_that_fails_to_decode_counts_as_whole() -> None:
    data, rng = encoded(), np.random.default_rng(1)
    for place in rng.integers(len(png.SIGNATURE), len(data), 400):
        broken = bytearray(data)
        broken[place] ^= int(rng.integers(1, 256))
        if png.is_whole(bytes(broken)) is not None:  # None: the header now names another form
            assert png.is_whole(bytes(broken)) is False
    assert decodes(data)


def test_a_picture_that_inflates_beyond_its_size_is_not_whole() -> None:
    small, large = encoded(size=(8, 8)), encoded(size=(800, 800), compress_level=9)
    start = len(png.SIGNATURE) + 25  # after the header's chunk
    assert png.is_whole(small[:start] + large[start:]) is False
