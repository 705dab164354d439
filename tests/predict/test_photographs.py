"""A photograph is seen as its owner sees it; a file that is none is named."""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.predict.photographs import focal_length, read_photograph


def saved(path, pixels, form, **tags):
    exif = PIL.Image.Exif()
    for number, value in tags.items():
        exif[int(number[1:], 16)] = value
    PIL.Image.fromarray(pixels).save(path, form, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_orientation_says(tmp_path, picture, orientation, form):  # A2
    path = saved(tmp_path / "photo", picture, form, x0112=orientation)
    with PIL.Image.open(path) as image:
        upright = np.asarray(PIL.ImageOps.exif_transpose(image))
    found = read_photograph(path)
    assert found.pixels.shape == upright.shape
    assert np.abs(found.pixels.astype(int) - upright).mean() < 2  # two JPEG decoders
    assert found.size == upright.shape[1::-1]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_changes_nothing(tmp_path, picture, orientation):
    path = saved(tmp_path / "photo.png", picture, "PNG", x0112=orientation)
    assert (read_photograph(path).pixels == picture).all()


def test_damaged_metadata_does_not_hide_the_picture(tmp_path, picture):
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "photo.jpg").write_bytes(buffer.getvalue())
    assert read_photograph(tmp_path / "photo.jpg").pixels.shape == picture.shape


def test_the_focal_length_comes_from_exif_or_is_said_to_be_a_guess():
    focal, source = focal_length({0xA405: 26}, 4000, 3000)
    assert focal == pytest.approx(5000 * 26 / 43.27) and "26 mm" in source
    for tags in ({}, {0xA405: 0}, {0xA405: "nonsense"}, {0xA405: 65535}):
        assert focal_length(tags, 400, 300) == (500, "a guess: one picture diagonal (53 degrees of view)")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0cut"])
def test_a_file_that_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(PoseRftError, match=r"bad\.jpg"):
        read_photograph(tmp_path / "bad.jpg")


def test_a_missing_photograph_is_named(tmp_path):
    with pytest.raises(PoseRftError, match=r"gone\.jpg cannot be read"):
        read_photograph(tmp_path / "gone.jpg")
