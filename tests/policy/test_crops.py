"""Square crops: geometry, borders, mirror, and decoding."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from pose_rft.errors import PoseRftError
from pose_rft.policy.config import CLIP_NORM
from pose_rft.policy.person_crops import Square, crop, normalise, size_of
from pose_rft.record import Box


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right by one step a pixel, green downwards, blue is constant."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.full_like(rows, 100)], -1).astype(np.uint8)


def encoded(picture: np.ndarray, extension: str = ".png") -> bytes:
    return cv2.imencode(extension, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def smooth_picture(height: int = 240, width: int = 320, cell: int = 20) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height // cell, width // cell, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_crop_of_its_own_size_is_the_picture_itself() -> None:
    picture = gradient(40, 40)
    assert np.array_equal(crop(picture, Square(0, 0, 40), 40), picture)


def test_the_persons_centre_lies_at_the_crops_centre_and_outside_is_black() -> None:
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[28:32, 8:12] = 254  # centre (10, 30)
    square = Square.around(Box((10.0, 30.0), 40.0, "test"), (90, 60), scale=1.5)
    assert square.side == 60
    cut = crop(picture + 1, square, 30)
    rows, columns = np.nonzero(cut[..., 0] > 120)
    assert abs(rows.mean() - 14.5) < 0.6 and abs(columns.mean() - 14.5) < 0.6
    assert not cut[:, :9].any()  # x < 0


def test_points_go_to_the_crop_and_back() -> None:
    square = Square(10, 20, 50)
    points = np.array([[10.0, 20.0], [35.0, 45.0], [60.0, 70.0]])
    assert np.allclose(square.to_crop(points), [[-1, -1], [0, 0], [1, 1]])
    assert np.allclose(square.to_picture(square.to_crop(points)), points)


def test_a_pixel_lands_where_its_point_says() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[40:43, 70:73] = 255  # around (71.5, 41.5)
    square = Square(30, 10, 60)
    cut = crop(picture, square, 60).astype(float)[..., 0]
    rows, columns = np.mgrid[:60, :60] + 0.5
    found = np.array([(cut * columns).sum(), (cut * rows).sum()]) / cut.sum() / 60 * 2 - 1
    assert np.allclose(found, square.to_crop(np.array([71.5, 41.5])), atol=0.01)


def test_a_mirrored_crop_is_the_mirrored_crop() -> None:
    picture, square = smooth_picture(), Square(41.3, -8.2, 177.7)
    assert np.abs(crop(picture, square, 64, flip=True).astype(int) - crop(picture, square, 64)[:, ::-1]).max() <= 1


@pytest.mark.parametrize("side", [60.0, 130.0, 300.0, 900.0])
def test_reduced_decoding_shows_the_same_crop_as_full_decoding(side: float) -> None:
    picture = smooth_picture(960, 1280, cell=80)
    jpeg = encoded(picture, ".jpg")
    square = Square(200.4, 31.7, side)
    fast, slow = crop(jpeg, square, 64).astype(int), crop(picture, square, 64).astype(int)
    assert np.abs(fast - slow).mean() < 2.5
    shifted = crop(picture, Square(square.left + side / 64, square.top, side), 64).astype(int)
    assert np.abs(fast - slow).mean() < np.abs(shifted - slow).mean() / 2


def test_bytes_arrays_and_pil_images_give_one_crop() -> None:
    picture, square = smooth_picture(), Square(20, 30, 150)
    expected = crop(picture, square, 64)
    assert np.array_equal(crop(PilImage.fromarray(picture), square, 64), expected)
    assert np.abs(crop(encoded(picture), square, 64).astype(int) - expected).max() <= 12  # decoded at half size
    small = Square(20, 30, 100)
    assert np.array_equal(crop(encoded(picture), small, 64), crop(picture, small, 64))


def test_exif_orientation_is_ignored_because_annotations_count_stored_pixels() -> None:
    picture = smooth_picture()
    buffer = io.BytesIO()
    exif = PilImage.Exif()
    exif[0x0112] = 6
    PilImage.fromarray(picture).save(buffer, "JPEG", quality=95, exif=exif)
    cut = crop(buffer.getvalue(), Square(20, 30, 60), 64).astype(int)
    assert np.abs(cut - crop(picture, Square(20, 30, 60), 64)).mean() < 4


@pytest.mark.parametrize("damage", ["empty", "truncated jpeg", "truncated png", "text"])
def test_damaged_bytes_are_an_error_not_a_grey_picture(damage: str) -> None:
    data = {
        "empty": b"",
        "truncated jpeg": encoded(smooth_picture(), ".jpg")[:-2000],
        "truncated png": encoded(smooth_picture())[:-5000],
        "text": b"hello",
    }[damage]
    with pytest.raises(PoseRftError, match=f"picture of {len(data)} bytes cannot be decoded"):
        crop(data, Square(0, 0, 50), 32)


def test_a_box_without_area_is_an_error() -> None:
    with pytest.raises(PoseRftError, match="side 0"):
        crop(smooth_picture(), Square(0, 0, 0), 32)


def test_sizes_are_read_from_any_kind_of_picture() -> None:
    picture = smooth_picture(30, 50)
    assert {size_of(picture), size_of(PilImage.fromarray(picture)), size_of(encoded(picture))} == {(50, 30)}
    with pytest.raises(PoseRftError):
        size_of(b"hello")


def test_normalised_pixels_have_the_stated_mean_and_deviation() -> None:
    crops = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pixels = normalise(crops, CLIP_NORM)
    assert pixels.shape == (2, 3, 8, 8) and pixels.dtype == torch.float32 and pixels.is_contiguous()
    mean, deviation = (torch.tensor(values)[:, None, None] for values in CLIP_NORM)
    expected = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / deviation
    assert torch.allclose(pixels, expected, atol=1e-5)
