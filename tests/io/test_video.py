import contextlib
import io
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io import video


def numbered(index: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A picture that shows its index as eight black or white columns."""
    bits = [(index >> bit) & 1 for bit in range(8)]
    row = np.repeat(np.array(bits, np.uint8) * 255, size[1] // 8)
    return np.broadcast_to(row[None, :, None], (*size, 3)).copy()


def shown(picture: np.ndarray) -> int:
    columns = picture.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1) > 127
    return int(sum(1 << bit for bit, on in enumerate(columns) if on))


FORMATS = [("Directions 1.54138969.mp4", "h264"), ("video_0.avi", "xvid")]


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_every_frame_comes_back_under_its_own_number(tmp_path: Path, name: str, codec: video.Codec) -> None:
    path = tmp_path / "S1 x" / name
    assert video.encode(path, (numbered(i) for i in range(50)), 50, codec) == 50
    assert [(i, shown(picture)) for i, picture in video.frames(path)] == [(i, i) for i in range(50)]
    for wanted in (range(0, 31, 5), [3, 17, 40], [48, 60], []):
        sampled = [(i, shown(picture)) for i, picture in video.frames(path, wanted)]
        assert sampled == [(i, i) for i in wanted if i < 50]


STRUCTURES = ["bframes=0", "bframes=3:b-pyramid=normal", "bframes=5:b-pyramid=none:open-gop=1"]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_skipping_frames_in_between_changes_no_bit_of_the_wanted(tmp_path: Path, structure: str) -> None:
    path = tmp_path / "a.mp4"
    film(path, 120, structure)
    everything = [picture for _, picture in video.frames(path)]
    rng = np.random.default_rng(0)
    drawn = [np.flatnonzero(rng.random(120) < 0.2).tolist() for _ in range(5)]
    for wanted in (range(0, 120, 5), range(3, 120, 64), [119], *drawn):
        sampled = dict(video.frames(path, wanted))
        assert list(sampled) == list(wanted)
        for index, picture in sampled.items():
            np.testing.assert_array_equal(picture, everything[index])


def test_a_wanted_frame_that_does_not_come_out_is_damage_and_shifts_no_number(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    film(path, 120, "bframes=3")
    everything = [picture for _, picture in video.frames(path)]
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    whole = path.read_bytes()
    for at in range(10, 120, 7):
        position, size = packets[at]
        path.write_bytes(whole[:position] + bytes(size) + whole[position + size :])
        good = []
        with contextlib.suppress(PoseRftError):
            for found in video.frames(path, range(0, 120, 5)):
                good.append(found)
        assert len(good) >= (at - 8) // 5, "frames before the damage are lost"
        for index, picture in good[: (at - 8) // 5]:
            np.testing.assert_array_equal(picture, everything[index])


def film(path: Path, count: int, structure: str) -> None:
    """A moving, noisy H.264 video with the given x264 parameters."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (200, 400, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        options = {"x264-params": f"{structure}:keyint=50:threads=1:scenecut=0:b-adapt=0"}
        stream = container.add_stream("libx264", rate=50, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(count):
            picture = np.ascontiguousarray(texture[number : number + 64, 2 * number : 2 * number + 96] // 2 + 32)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_repeated_pictures_keep_their_numbers(tmp_path: Path, name: str, codec: video.Codec) -> None:
    video.encode(tmp_path / name, (numbered(i // 10) for i in range(100)), 25, codec)
    assert [shown(picture) for _, picture in video.frames(tmp_path / name)] == [i // 10 for i in range(100)]


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_the_same_pictures_give_the_same_bytes(tmp_path: Path, name: str, codec: video.Codec) -> None:
    for folder in ("a", "b"):
        video.encode(tmp_path / folder / name, (numbered(i) for i in range(12)), 50, codec)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_a_cut_video_gives_its_good_frames_and_then_one_sentence(tmp_path: Path, name: str, codec: video.Codec) -> None:
    path = tmp_path / name
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(20)]
    video.encode(path, noise, 50, codec)
    whole = path.read_bytes()
    for share in (0, 0.01, 0.5):
        path.write_bytes(whole[: int(share * len(whole))])
        seen = []
        try:
            seen = [index for index, _ in video.frames(path)]
        except PoseRftError as error:
            assert name in str(error)
        assert seen == list(range(len(seen))) and len(seen) < 20


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError, match="does not exist"):
        list(video.frames(tmp_path / "none.mp4"))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(PoseRftError, match=r"empty\.mp4 is empty"):
        list(video.frames(tmp_path / "empty.mp4"))
    (tmp_path / "text.mp4").write_text("not a video " * 99)
    with pytest.raises(PoseRftError, match=r"text\.mp4 is no MP4 and no AVI"):
        list(video.frames(tmp_path / "text.mp4"))


def test_odd_sizes_and_changing_sizes_are_refused_without_leaving_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        video.encode(tmp_path / "a.mp4", [np.zeros((5, 8, 3), np.uint8)], 50, "h264")
    with pytest.raises(ValueError, match="picture 1"):
        video.encode(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((6, 8, 3), np.uint8)], 50, "h264")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_a_red_video_gives_red_jpegs(tmp_path: Path, name: str, codec: video.Codec) -> None:
    red = np.broadcast_to(np.array([200, 20, 20], np.uint8), (48, 64, 3))
    video.encode(tmp_path / name, [red] * 3, 25, codec)
    for _, picture in video.frames(tmp_path / name, [0, 2]):
        with PIL.Image.open(io.BytesIO(video.encode_jpeg(picture, 92))) as jpeg:
            np.testing.assert_allclose(np.asarray(jpeg)[24, 32], red[0, 0], atol=8)


def test_every_so_manieth_frame_from_a_start_is_the_same_picture(tmp_path):
    pictures = [np.full((16, 32, 3), 12 * i, np.uint8) for i in range(12)]
    video.encode(tmp_path / "a.mp4", pictures, 10, "h264")
    whole = dict(video.frames(tmp_path / "a.mp4"))
    for every, start in ((1, 0), (3, 0), (3, 4), (5, 11), (1, 12)):
        found = dict(video.frames(tmp_path / "a.mp4", every=every, start=start))
        assert list(found) == [i for i in range(12) if i >= start and i % every == 0]
        assert all((found[i] == whole[i]).all() for i in found)


@pytest.mark.parametrize("degrees, turns", [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_a_video_says_how_it_stands_and_how_fast_it_runs(tmp_path, degrees, turns):
    import struct

    picture = np.zeros((16, 32, 3), np.uint8)
    video.encode(tmp_path / "a.mp4", [picture] * 4, 10, "h264")
    data = (tmp_path / "a.mp4").read_bytes()
    one, plain = 1 << 16, struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    cos, sin = ((1, 0), (0, -1), (-1, 0), (0, 1))[turns]  # the track header's matrix, counter-clockwise
    turned = struct.pack(">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    at = data.index(plain, data.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(data[:at] + turned + data[at + 36 :])
    assert video.facts(tmp_path / "a.mp4") == video.Facts(10.0, 4, turns)
