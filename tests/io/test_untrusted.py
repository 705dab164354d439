"""Small files that declare terabytes, climb out of their folder or would run code are refused with one sentence."""

import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from pose_rft.errors import PoseRftError
from pose_rft.io import limits
from pose_rft.io.archives import tar_members
from pose_rft.io.json_files import read_json
from pose_rft.io.matlab import cells, open_hdf5, read_mat
from pose_rft.io.npz import names_in_npz, read_npz
from pose_rft.io.parsing import parsing
from pose_rft.io.paths import inside
from pose_rft.io.unpickle import read_pickle
from pose_rft.sample.matlab_files import write_v73

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this limit on a process")


def data_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


@linux
def test_inside_bounded_a_huge_allocation_fails_at_once_and_outside_it_is_free_again(tmp_path: Path) -> None:
    before = data_limit()
    (tmp_path / "small").write_bytes(b"x" * 100)
    sentence = r"small has 100 bytes but asks for more than 256 MiB"
    with pytest.raises(PoseRftError, match=sentence), limits.bounded(tmp_path / "small"):
        np.ones(1 << 30)
    assert data_limit() == before
    with limits.bounded(tmp_path / "small"), limits.bounded("a member", 1 << 40):
        np.ones(1 << 20)
    assert data_limit() == before


IN_THREADS = """
import resource, sys, threading
import numpy as np
from pose_rft.io import limits
inside = [threading.Event() for _ in range(2)]
leave = [threading.Event() for _ in range(2)]
def parse(i):
    with limits.bounded(sys.executable, 100):
        inside[i].set()
        leave[i].wait()
threads = [threading.Thread(target=parse, args=(i,), daemon=True) for i in range(2)]
for thread, entered in zip(threads, inside):
    thread.start()
    entered.wait()
np.ones(1 << 27)  # a gigabyte, beside files that may take a quarter of one
for thread, event in zip(threads, leave):  # the first that came goes first
    event.set()
    thread.join()
print(resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY)
"""


@linux
def test_threads_that_parse_bound_nobody_else_and_leave_no_limit() -> None:
    """It is the process's: a training died of it minutes after its readers had overlapped."""
    done = subprocess.run([sys.executable, "-c", IN_THREADS], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr[-500:]


@linux
@pytest.mark.parametrize("rows", [2**31 - 1, 100_000_000])
def test_a_matlab_cell_array_that_declares_gigabytes_is_refused_without_touching_them(
    tmp_path: Path, rows: int
) -> None:
    """scipy makes the cells before it reads the first one: 16 GB for 200 bytes, and minutes to free them."""
    cell = np.empty((14, 1), object)
    cell[:, 0] = [np.zeros((2, 3))] * 14
    scipy.io.savemat(tmp_path / "bomb.mat", {"annot2": cell})
    content = bytearray((tmp_path / "bomb.mat").read_bytes())
    content[160:168] = struct.pack("<ii", rows, 1)  # the first variable's dimensions
    (tmp_path / "bomb.mat").write_bytes(content)
    with pytest.raises(PoseRftError, match=r"bomb\.mat is damaged"):  # found by the walk before scipy reads
        read_mat(tmp_path / "bomb.mat")


@linux
def test_a_v73_dataset_of_terabytes_is_refused(tmp_path: Path) -> None:
    write_v73(tmp_path / "bomb.mat", {"annot2": np.zeros((2, 2))})
    with h5py.File(tmp_path / "bomb.mat", "r+") as file:
        file.create_dataset("annot3", shape=(10**6, 10**6), dtype="f8", chunks=(1000, 1000))
    with pytest.raises(PoseRftError, match=r"bomb\.mat"):
        read_mat(tmp_path / "bomb.mat")
    with pytest.raises(PoseRftError, match=r"bomb\.mat"), open_hdf5(tmp_path / "bomb.mat") as file:
        file["annot3"][()]


def npy_header(shape: str, descr: str = "<f8") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@linux
@pytest.mark.parametrize("shape", ["(1000000, 1000000)", "(2000000000,)", "(-1,)", "('a',)"])
def test_an_npz_of_100_bytes_that_declares_terabytes_is_refused(tmp_path: Path, shape: str) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("poses.npy", npy_header(shape))
    with pytest.raises(PoseRftError, match=r"bomb\.npz"):
        read_npz(tmp_path / "bomb.npz")


def test_a_zip_bomb_is_refused_before_it_inflates(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("poses.npy", npy_header("(16000000,)") + bytes(128_000_000))
    assert (tmp_path / "bomb.npz").stat().st_size < 200_000
    with pytest.raises(PoseRftError, match=r"'poses\.npy' declares 128000128 bytes in \d+ stored ones"):
        read_npz(tmp_path / "bomb.npz")


def test_an_object_array_gives_its_data_and_never_runs_code(tmp_path: Path) -> None:
    people = np.array({"body_pose": np.ones((2, 69))}, dtype=object)
    np.savez(tmp_path / "good.npz", smpl=people, imgname=np.array(["a.jpg"]))
    assert names_in_npz(tmp_path / "good.npz") == {"smpl", "imgname"}
    content = read_npz(tmp_path / "good.npz")
    assert content["smpl"].item()["body_pose"].shape == (2, 69) and content["imgname"][0] == "a.jpg"
    assert set(read_npz(tmp_path / "good.npz", ["imgname", "absent"])) == {"imgname"}

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    np.savez(tmp_path / "evil.npz", smpl=np.array([Payload()], dtype=object))
    with pytest.raises(PoseRftError, match=r"names (posix|nt)\.system"):
        read_npz(tmp_path / "evil.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text" * 30])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(PoseRftError, match=r"bad\.npz"):
        read_npz(tmp_path / "bad.npz")
    with pytest.raises(PoseRftError, match=r"none\.npz does not exist"):
        read_npz(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02r" + struct.pack("<I", 0xFFFFFFFF) + b".",  # LONG_BINPUT: a memo of 2**32 places, and nothing for it
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 45) + b".",  # BINBYTES8 of 32 TiB
        b"\x80\x02cnumpy\nndarray\n(J\x00\x00\x00\x7f\x85R.",  # ndarray((2**31,))
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\x00\x00\x00\x7f\x85U\x01b\x87R.",
    ],
)
def test_a_pickle_that_asks_for_gigabytes_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bomb.pkl").write_bytes(content)
    with pytest.raises(PoseRftError, match=r"pickle|bomb"):
        read_pickle(tmp_path / "bomb.pkl")


def test_complex_numbers_are_refused_and_not_cut_in_half(tmp_path: Path) -> None:
    numbers = np.array([1 + 2j, 3])
    np.savez(tmp_path / "a.npz", pose=numbers)
    with pytest.raises(PoseRftError, match=r"pose.* is complex"):
        read_npz(tmp_path / "a.npz")
    for protocol in (2, 4, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"pose": numbers}, protocol))
        with pytest.raises(PoseRftError, match="complex"):
            read_pickle(tmp_path / "a.pkl")
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["annot3"] = numbers
    with open(tmp_path / "a.mat", "r+b") as raw:
        raw.write(b"MATLAB 7.3".ljust(124) + b"\x00\x02IM")
    with pytest.raises(PoseRftError, match="complex"):
        read_mat(tmp_path / "a.mat")
    with pytest.raises(ValueError, match="complex"):
        cells(numbers)


def test_nested_json_and_json_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, sentence in (
        ("[" * 100_000, "nests deeper"),
        ('["]",' * 200 + "1" + "]" * 200, "nests deeper"),  # brackets in strings close nothing
        ('["\\\\",["\\"]",' * 60 + "1" + "]]" * 60, "nests deeper"),
        ("[]".encode("utf-16").decode("latin1"), "not UTF-8"),
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[1]", "holds a list, expected a dict"),
        ("9" * 5000, "is not JSON"),
    ):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(PoseRftError, match=sentence):
            read_json(path, dict)
    path.write_text(json.dumps({"a": [1, 2.5, None]}))
    assert read_json(path, dict) == {"a": [1, 2.5, None]}
    with pytest.raises(PoseRftError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")


def test_names_stay_in_their_folder() -> None:
    folder = Path("/release/train2017")
    assert inside(folder, "a/b.jpg") == folder / "a/b.jpg"
    for name in ("../x.jpg", "a/../../x.jpg", "/etc/passwd", "a\0.jpg", "..\\x.jpg", "", None, 3, "x" * 2000):
        with pytest.raises(PoseRftError, match="names the file"):
            inside(folder, name)


def write_tar(path: Path, *members: tuple[str, bytes, bytes], mode: str = "w") -> Path:
    """members: (name, type, content)."""
    with tarfile.open(path, mode) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
            tar.addfile(info, io.BytesIO(content))
    return path


def test_a_tar_gives_its_files_in_order_and_unpacks_nothing(tmp_path: Path) -> None:
    members = (("a/1.jpg", tarfile.REGTYPE, b"one"), ("a", tarfile.DIRTYPE, b""), ("b.pyd", tarfile.REGTYPE, b"two"))
    for mode in ("w", "w:gz"):
        path = write_tar(tmp_path / "good.tar", *members, mode=mode)
        assert list(tar_members(path)) == [("a/1.jpg", b"one"), ("b.pyd", b"two")]
    assert [path.name for path in tmp_path.iterdir()] == ["good.tar"]


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("../../evil.jpg", tarfile.REGTYPE, "lies outside"),
        ("/etc/passwd", tarfile.REGTYPE, "lies outside"),
        ("link.jpg", tarfile.SYMTYPE, "link or a device"),
        ("hard.jpg", tarfile.LNKTYPE, "link or a device"),
        ("fifo", tarfile.FIFOTYPE, "link or a device"),
        ("disk", tarfile.BLKTYPE, "link or a device"),
    ],
)
def test_members_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, kind: bytes, sentence: str) -> None:
    with pytest.raises(PoseRftError, match=sentence):
        list(tar_members(write_tar(tmp_path / "evil.tar", (name, kind, b""))))


def test_a_cut_tar_a_member_of_terabytes_and_a_gzip_bomb_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", ("a.jpg", tarfile.REGTYPE, b"x" * 5000))
    whole = path.read_bytes()
    path.write_bytes(whole[:2000])
    with pytest.raises(PoseRftError, match=r"a\.tar is (cut|not a readable tar)"):
        list(tar_members(path))
    info = tarfile.TarInfo("huge.jpg")
    info.size = 1 << 42
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(PoseRftError, match="declares 4398046511104 bytes"):
        list(tar_members(path))
    for content in (b"", b"text" * 300):
        path.write_bytes(content)
        with pytest.raises(PoseRftError, match=r"a\.tar is not a readable tar"):
            list(tar_members(path))


def test_parsing_turns_what_damaged_content_causes_into_one_sentence_and_keeps_bugs(tmp_path: Path) -> None:
    for error in (
        KeyError("pose"),
        ValueError("x"),
        IndexError(),
        AttributeError("get"),
        OverflowError(),
        struct.error(),
    ):
        sentence = f"a.mat is not a list of poses .{type(error).__name__}"
        with pytest.raises(PoseRftError, match=sentence), parsing(tmp_path / "a.mat", "a list of poses"):
            raise error
    with pytest.raises(PoseRftError, match="my own words"), parsing(tmp_path / "a.mat", "a list of poses"):
        raise PoseRftError("my own words")
    with pytest.raises(AssertionError), parsing(tmp_path / "a.mat", "a list of poses"):
        raise AssertionError
