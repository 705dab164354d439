"""Files that point to others, or stand for more than they hold, are refused before anything is followed or built."""

import collections
import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import av
import h5py
import numpy as np
import polars as pl
import pytest
import scipy.io

from pose_rft.datasets.h36m.metadata import read_metadata
from pose_rft.errors import PoseRftError
from pose_rft.io import limits, parquet
from pose_rft.io.archives import tar_members
from pose_rft.io.hdf5 import open_hdf5_file, read_datasets
from pose_rft.io.matlab import read_mat
from pose_rft.io.npz import read_npy, read_npz
from pose_rft.io.video import frames
from pose_rft.io.xml_files import read_xml
from pose_rft.predict import pose_files
from pose_rft.predict.pose_files import read_pose
from pose_rft.sample.h36m_files import write_metadata
from pose_rft.sample.matlab_files import struct_array, write_v5


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Files outside the release that a hostile one points to."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with h5py.File(folder / "secret.h5", "w") as file:
        file["x"] = np.arange(4.0)
    (folder / "secret.bin").write_bytes(np.arange(4.0).tobytes())
    os.mkfifo(folder / "pipe")
    return folder


def external_link(file: h5py.File, elsewhere: Path) -> None:
    file["x"] = h5py.ExternalLink(elsewhere / "secret.h5", "/x")


def link_to_a_pipe(file: h5py.File, elsewhere: Path) -> None:
    file["x"] = h5py.ExternalLink(elsewhere / "pipe", "/x")


def soft_link_to_it(file: h5py.File, elsewhere: Path) -> None:
    file["y"] = h5py.ExternalLink(elsewhere / "secret.h5", "/")
    file["x"] = h5py.SoftLink("/y/x")


def external_storage(file: h5py.File, elsewhere: Path) -> None:
    file.create_dataset("x", (4,), "f8", external=[(str(elsewhere / "secret.bin"), 0, 32)])


def virtual_data(file: h5py.File, elsewhere: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(elsewhere / "secret.h5", "x", shape=(4,))
    file.create_virtual_dataset("x", layout)


def terabytes(file: h5py.File, elsewhere: Path) -> None:
    file.create_dataset("x", (1 << 20, 1 << 20), "f8", chunks=(1 << 10, 1 << 10))


def another_filter(file: h5py.File, elsewhere: Path) -> None:
    file.create_dataset("x", data=np.zeros(4096), compression="lzf")


def a_structure(file: h5py.File, elsewhere: Path) -> None:
    file["x"] = np.zeros(4, [("a", "f8"), ("b", "i4")])


@pytest.mark.parametrize(
    "make",
    [
        external_link, link_to_a_pipe, soft_link_to_it, external_storage, virtual_data, terabytes, another_filter,
        a_structure,
    ],
)  # fmt: skip
def test_hdf5_gives_only_what_lies_in_the_file_itself(tmp_path: Path, elsewhere: Path, make) -> None:  # S5
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        make(file, elsewhere)
        file["own"] = np.ones(3)
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3".ljust(124) + b"\x00\x02IM")
    with pytest.raises(PoseRftError, match=r"a\.mat"):
        read_datasets(path, ("x",))
    np.testing.assert_array_equal(read_datasets(path, ("own",))[0], np.ones(3))
    with open_hdf5_file(path) as file:
        assert "own" in file.names()
    try:
        assert "secret" not in str(read_mat(path).get("x"))
    except PoseRftError as error:
        assert "a.mat" in str(error)


def test_references_to_external_storage_are_not_followed_either(tmp_path: Path, elsewhere: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external_storage(file, elsewhere)
        file["cells"] = np.array([file["x"].ref], h5py.ref_dtype)
    with open_hdf5_file(tmp_path / "a.h5") as file:
        reference = file["cells"][()][0]
        with pytest.raises(PoseRftError, match="from another file"):
            file[reference]


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, dimensions: tuple[int, ...], inside: bytes, declares: int | None = None) -> bytes:
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(dimensions)}i", *dimensions))
    content = head + element(1, b"") + inside
    return struct.pack("<II", 14, len(content) if declares is None else declares) + content


def v5(*variables: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(variables)


NUMBER = matrix(6, (1, 1), element(9, struct.pack("<d", 3.0)))


def nested_cells(depth: int, declares: int | None = None) -> bytes:
    inside = NUMBER
    for _ in range(depth):
        inside = matrix(1, (1, 1), inside, declares)
    return inside


def nested_structs(depth: int) -> bytes:
    inside = NUMBER
    for _ in range(depth):
        inside = matrix(2, (1, 1), element(5, struct.pack("<i", 2)) + element(1, b"a\0") + inside)
    return inside


def behind_a_sibling(depth: int) -> bytes:
    inside = NUMBER
    for _ in range(depth):
        inside = matrix(1, (2, 1), NUMBER + inside)
    return inside


@pytest.mark.parametrize(
    "variable",
    [
        nested_cells(1500),
        nested_structs(1500),
        behind_a_sibling(1500),
        nested_cells(1500, 48),  # lengths that end before what is inside, which scipy does not look at
        matrix(1, (40, 1), matrix(17, (1, 1), b"") * 40),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_cells_and_structs_nested_absurdly_are_refused(tmp_path: Path, variable: bytes, packed: bool) -> None:  # S8
    if packed:
        content = zlib.compress(variable)
        variable = struct.pack("<II", 15, len(content)) + content
    (tmp_path / "deep.mat").write_bytes(v5(variable))
    with pytest.raises(PoseRftError, match=r"deep\.mat is damaged"):
        read_mat(tmp_path / "deep.mat")


def test_a_number_that_says_it_is_complex_and_is_none_ends_in_a_sentence(tmp_path: Path) -> None:
    """One bit of damage: what comes next, a matrix, stood for the imaginary part, and scipy's reader ended Python."""
    write_v5(tmp_path / "a.mat", {"R": struct_array([{"x": 1.0, "y": 2.0}])})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    flags = content.index(struct.pack("<IIII", 6, 8, 6, 0))  # of a matrix of doubles
    content[flags + 9] |= 8
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(PoseRftError, match=r"a\.mat is damaged"):
        read_mat(tmp_path / "a.mat")


def test_many_cells_and_structs_side_by_side_are_read(tmp_path: Path) -> None:
    people = np.empty((60, 1), object)
    for row in range(60):
        joints = np.array([(1.0, "a", 2 + 1j), (2.0, "bcd", 3.0)], [("x", object), ("name", object), ("z", object)])
        people[row, 0] = {"points": joints, "empty": np.zeros((0, 0)), "flag": np.array([[True]])}
    for compress in (False, True):
        scipy.io.savemat(tmp_path / "wide.mat", {"people": people, "a": np.arange(5.0)}, do_compression=compress)
        found = read_mat(tmp_path / "wide.mat")
        assert found["people"].shape == (60, 1) and found["a"].size == 5
    write_v5(tmp_path / "own.mat", {"people": people})
    assert read_mat(tmp_path / "own.mat")["people"].shape == (60, 1)


def with_codec(path: Path, codec: str, width: int, height: int) -> None:
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, {"png": "rgb24"}.get(codec, "yuv420p")
        frame = av.VideoFrame(width, height, stream.pix_fmt)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_video_of_pictures_that_no_release_uses_is_refused_undecoded(tmp_path: Path) -> None:  # S12
    with_codec(tmp_path / "a.avi", "png", 4000, 4000)
    with pytest.raises(PoseRftError, match=r"a\.avi is encoded in a way that no release uses"):
        list(frames(tmp_path / "a.avi"))


def test_a_frame_that_is_larger_than_the_container_says_is_refused(tmp_path: Path, monkeypatch) -> None:  # S12
    from pose_rft.io import video

    with_codec(tmp_path / "a.avi", "mpeg4", 640, 480)
    monkeypatch.setattr(video, "MOST_PIXELS", 1000)
    with pytest.raises(PoseRftError, match="declares frames of 640x480 px"):
        list(frames(tmp_path / "a.avi"))


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "<?xml version='1.0'?><MPD><Period><BaseURL>{}</BaseURL></Period></MPD>",
    ],
)
def test_a_playlist_is_no_video_whatever_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("a.mp4", "a.avi"):
        (tmp_path / name).write_text(content.format(tmp_path / "secret.txt"))
        with pytest.raises(PoseRftError, match="is no MP4 and no AVI"):
            list(frames(tmp_path / name))


def test_a_table_of_repeated_rows_is_refused_by_its_footer(tmp_path: Path, monkeypatch) -> None:  # S12
    pl.DataFrame({"key": ["x"] * 1_000_000, "n": [0] * 1_000_000}).write_parquet(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    assert len(parquet.read_parquet(tmp_path / "a.parquet", {"key": pl.String})) == 1_000_000
    monkeypatch.setattr(parquet, "FREE_VALUES", 1_000_000)
    with pytest.raises(PoseRftError, match=r"declares 2000000 values"):
        parquet.read_parquet(tmp_path / "a.parquet", {})


def test_columns_of_another_type_are_refused_and_foreign_ones_left_out(tmp_path: Path) -> None:  # S21
    path = tmp_path / "a.parquet"
    pl.DataFrame({"key": [1], "other": ["x"]}).write_parquet(path)
    with pytest.raises(PoseRftError, match="has no column 'key' of type String"):
        parquet.read_parquet(path, {"key": pl.String})
    assert parquet.read_parquet(path, {"key": pl.Int64}).columns == ["key"]
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], b"PAR1" + bytes(100) + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(PoseRftError, match=r"a\.parquet cannot be read"):
            parquet.read_parquet(path, {})


def test_xml_with_entities_or_absurd_counts_is_refused(tmp_path: Path) -> None:  # S12
    path = tmp_path / "metadata.xml"
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(10))
    path.write_text(f"<?xml version='1.0'?><!DOCTYPE x [{laughs}]><x>&a9;</x>")
    with pytest.raises(PoseRftError, match="declares a document type"):
        read_xml(path)
    for text in ("<a>" * 10_000, "<a", "", "<a>\0</a>"):
        path.write_text(text)
        with pytest.raises(PoseRftError, match="is not XML"):
            read_xml(path)
    write_metadata(path, {}, {subject: [(1000, 1002)] * 4 for subject in range(1, 12)}, np.zeros(300))
    text = path.read_text()
    assert "[0 0 0 0 0]" in text
    for absurd in ("1000000000000000", "1e999", "-5", "nan"):
        path.write_text(text.replace("[0 0 0 0 0]", f"[{' '.join([absurd] * 5)}]"))
        with pytest.raises(PoseRftError, match=r"is not Human3\.6M's metadata"):
            read_metadata(path)


def npy_start(shape: str, kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "start", [npy_start("(100000, 100000)"), npy_start("(1000000000,)", "<U0"), npy_start("(-1,)")]
)
def test_arrays_that_declare_more_than_the_file_holds_are_refused(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(start + bytes(64))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("pose.npy", start + bytes(64))
    for read in (lambda: read_npy(tmp_path / "a.npy"), lambda: read_npz(tmp_path / "a.npz")):
        with pytest.raises(PoseRftError, match=r"a\.np"):
            read()


def test_describe_reads_no_file_of_gigabytes(tmp_path: Path, monkeypatch) -> None:  # S12
    with open(tmp_path / "a.npy", "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(PoseRftError, match="expected at most"):
        read_pose(tmp_path / "a.npy")
    monkeypatch.setattr(pose_files, "LARGEST", 1_000_000)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("pose.npy", npy_start("(250000,)") + bytes(2_000_000))
    with pytest.raises(PoseRftError, match="expected at most"):
        read_pose(tmp_path / "a.npz")


def test_a_packed_tar_of_a_million_empty_members_is_refused(tmp_path: Path) -> None:
    block = tarfile.TarInfo("a").tobuf()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(block * 100_000, 9))
    with pytest.raises(PoseRftError, match=r"a\.tar\.gz holds more members than a file of its size can"):
        collections.deque(tar_members(tmp_path / "a.tar.gz"), maxlen=0)


def test_what_takes_too_long_ends_with_one_sentence_and_the_watch_is_off_again(monkeypatch) -> None:  # S12
    import signal

    monkeypatch.setattr(limits, "SECONDS", 0.2)
    monkeypatch.setattr(limits, "SECONDS_PER_BYTE", 0.0)
    with pytest.raises(PoseRftError, match=r"slow\.json takes more than 0 s"), limits.bounded("slow.json", 5):
        while True:
            io.BytesIO(b"x").read()
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
