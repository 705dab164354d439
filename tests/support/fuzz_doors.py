"""What the fuzz suite feeds: for every kind of file a whole one and its reader; run as a program, a child that reads.

The child bounds its own memory and time, says what it is about to read, and what came of it: a result, one sentence, or
a failure. Its parent (test_fuzz_doors.py) starts another one after the input that ended it.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from pose_rft.datasets.h36m.metadata import read_metadata
from pose_rft.datasets.mpi_inf_3dhp.files import read_calibration
from pose_rft.errors import PoseRftError
from pose_rft.evaluation.terminal import print_tables
from pose_rft.io import door, pictures, video
from pose_rft.io.archives import tar_members
from pose_rft.io.cdf import read_variable
from pose_rft.io.exif import orientation
from pose_rft.io.hdf5 import open_hdf5_file
from pose_rft.io.json_files import read_json
from pose_rft.io.matlab import cells, read_mat
from pose_rft.io.npz import read_npy, read_npz
from pose_rft.io.unpickle import read_pickle
from pose_rft.params_file import read_yaml
from pose_rft.record import Caption, Image, Record
from pose_rft.sample import python2_pickle
from pose_rft.sample.h36m_files import write_metadata, write_poses
from pose_rft.sample.matlab_files import cell_column, struct_array, write_v5, write_v73
from pose_rft.shards.index import as_defects, as_index, read_table, write_index
from pose_rft.shards.manifest import Manifest
from tests.support import fuzz_commands as commands
from tests.support import fuzz_folders as folders
from tests.support.damage import BYTES, damage

SECONDS, MEMORY = 20, 2 << 30
ROOT = Path(__file__).resolve().parents[2]


def picture(extension: str) -> bytes:
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2)
    return bytes(cv2.imencode(extension, pixels)[1].tobytes())


def record() -> Record:
    image = Image(picture(".jpg"), "jpg", 64, 48)
    return Record("k", "coco", "train", image=image, captions=(Caption("A person stands.", "human"),))


def _film(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), np.uint8)
    video.encode(path, pixels, 25, "h264" if path.suffix == ".mp4" else "xvid")


def _tar(path: Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name in ("a.jpg", "b.json"):
            info = tarfile.TarInfo(name)
            info.size = 3000
            tar.addfile(info, io.BytesIO(bytes(3000)))


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(600.0).reshape(20, 30), compression="gzip")
        file["name"] = np.array([b"a.jpg", b"b.jpg"])
        file["cells"] = np.array([file["x"].ref], h5py.ref_dtype)


def _model(path: Path) -> None:
    import scipy.sparse

    content = {"v": python2_pickle.Chumpy(np.ones((9, 3))), "J": scipy.sparse.csc_matrix(np.eye(3)), "f": np.arange(9)}
    python2_pickle.dump(content, path)


def _v5(path: Path) -> None:
    points = struct_array([{"x": 3.5, "id": 2, "is_visible": "1"}])
    people = struct_array([{"name": "a.jpg", "points": points}])
    write_v5(path, {"annot": cell_column([np.zeros((3, 56))] * 3), "R": people, "n": np.arange(50.0)})


def _metadata(path: Path) -> None:
    write_metadata(path, {}, {subject: [(1000, 1002)] * 4 for subject in range(1, 12)}, np.zeros(300))


def _manifest(path: Path) -> None:
    shard = {"shard": "00000.tar", "count": 1, "bytes": 10240, "sha256": "0" * 64, "defects": 0}
    content = {
        **{
            "dataset": "coco",
            "split": "train",
            "schema": 1,
            "converter": 1,
            "inventory": "x",
            "licence": "x",
            "plan": "x",
        },
        **{"samples": 1, "expected": 1, "bytes": 1, "defects": {}, "shards": [shard], "statistics": {}},
    }
    path.write_text(json.dumps(content))


def _open_hdf5(path: Path) -> None:
    with open_hdf5_file(path) as file:
        for name in file.names():
            found = file[name][()]
            if name == "cells":
                file[found.ravel()[0]][()]


def _unpickle(path: Path) -> None:
    found = read_pickle(path)
    if isinstance(found, dict):
        for value in found.values():
            if hasattr(value, "toarray"):
                value.toarray()


def _mat(path: Path) -> None:
    annotations = read_mat(path).get("annot")
    try:
        cells(annotations)
    except ValueError:
        return


def _members(path: Path) -> None:
    content = {"json": path.read_bytes(), "jpg": record().to_members()["jpg"]}
    Record.from_members(content).to_members()


def _picture(path: Path) -> None:
    data = door.read_file(path)
    assert 1 <= orientation(data) <= 8
    pictures.check(data)
    for shrink in (1, 2, 8):
        pictures.decode(data, shrink)  # what is accepted decodes at every size


def _tables(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        print_tables(path)


def _defects(path: Path) -> None:
    rows = [{"unit": "a", "row": str(row), "reason": "r", "detail": "d"} for row in range(50)]
    as_defects(rows).write_parquet(path)


ANNOTATIONS = {"a": [1, 2.5, None, "é"], "b": {"c": [[1, 2], [3]]}}
SUMMARY = "metrics/summary.json"
Kind = tuple[str, Callable[[Path], object], Callable[[Path], object]]
KINDS: dict[str, Kind] = {
    "JSON": ("a.json", lambda p: p.write_text(json.dumps(ANNOTATIONS)), read_json),
    "params.yaml": ("params.yaml", lambda p: p.write_bytes((ROOT / "params.yaml").read_bytes()), read_yaml),
    "pickle": ("a.pkl", lambda p: python2_pickle.dump({"poses": [np.ones((4, 72))], "genders": ["m"]}, p), read_pickle),
    "body model": ("model.bin", _model, _unpickle),
    "npz": ("a.npz", lambda p: np.savez_compressed(p, pose=np.ones((4, 72)), name=np.array(["a"])), read_npz),
    "npz with objects": ("b.npz", lambda p: np.savez(p, smpl=np.array({"a": np.ones(3)}, object)), read_npz),
    "npy": ("a.npy", lambda p: np.save(p, np.ones((17, 30))), read_npy),
    "MATLAB v5": ("five.mat", _v5, _mat),
    "MATLAB v7.3": ("seven.mat", lambda p: write_v73(p, {"annot": np.ones((3, 4)), "c": [np.ones((2, 2))]}), _mat),
    "HDF5": ("a.hdf5", _hdf5, _open_hdf5),
    "CDF": ("a.cdf", lambda p: write_poses(p, np.ones((5, 96))), lambda p: read_variable(p, "Pose")),
    "metadata.xml": ("metadata.xml", _metadata, read_metadata),
    "camera.calibration": (
        "camera.calibration",
        lambda p: p.write_text("name 0\n size 2048 2048\n intrinsic " + "1 " * 16 + "\n extrinsic " + "1 " * 16),
        read_calibration,
    ),
    "tar": ("a.tar", _tar, lambda p: list(tar_members(p))),
    "tar.gz": ("a.tar.gz", _tar, lambda p: list(tar_members(p))),
    "index.parquet": ("index.parquet", lambda p: write_index(p, [as_index([])]), read_table),
    "defects.parquet": ("defects.parquet", _defects, read_table),
    "manifest.json": ("manifest.json", _manifest, lambda p: Manifest.read(p.parent)),
    "a sample's JSON": ("k.json", lambda p: p.write_bytes(record().to_members()["json"]), _members),
    "summary.json": ("summary.json", lambda p: p.write_bytes((ROOT / SUMMARY).read_bytes()), _tables),
    "JPEG": ("a.jpg", lambda p: p.write_bytes(picture(".jpg")), _picture),
    "PNG": ("a.png", lambda p: p.write_bytes(picture(".png")), _picture),
    "MP4": ("a.mp4", _film, lambda p: list(video.frames(p, range(0, 8, 3)))),
    "AVI": ("a.avi", _film, lambda p: list(video.frames(p))),
}  # fmt: skip


def outcome(path: Path, read: Callable[[Path], object]) -> str:
    """`result`, `sentence`, or what went wrong."""
    start = time.process_time()
    before = content(path.parent)
    WRITTEN.clear()
    try:
        read(path)
        told = "result"
    except PoseRftError as error:
        told = (
            "sentence" if len(str(error)) < 1500 and "\n" not in str(error).strip() else f"many words: {error!s:.200}"
        )
    except BaseException:
        return traceback.format_exc(limit=-3)
    if time.process_time() - start > SECONDS:
        return f"took {time.process_time() - start:.0f} s"
    if strange := [name for name in WRITTEN if not name.startswith((str(path.parent), "/dev/null"))]:
        return f"wrote or started {strange[:3]}"
    return told if path.name in MAY_WRITE or content(path.parent) == before else "left a file behind"


def content(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "__pycache__" not in path.parts}


WRITTEN: list[str] = []  # since the last input: what Python opened for writing, and what it started
MAY_WRITE = ("command",)  # into their own folder


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if isinstance(arguments[0], (str, bytes)):
            WRITTEN.append(str(Path(os.fsdecode(arguments[0])).absolute()))
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"):
        WRITTEN.append(f"{event} {arguments!s:.200}")


def inputs(count: int, seed: int) -> Iterator[tuple[int, str]]:
    names = [kind for kind in EVERYTHING if kind.startswith(os.environ.get("FUZZ_KIND", ""))]
    for number in range(count):
        yield number, names[(number + seed) % len(names)]


def child(folder: Path, seed: int, first: int, count: int) -> None:
    """Reads inputs `first` to `count`; a line `> number kind` before each, `< outcome` as JSON after it."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TMPDIR": str(folder)}
    os.chdir(folder)
    tempfile.gettempdir()  # tries once whether it can write there
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError(f"more than {3 * SECONDS} s")))
    whole: dict[str, tuple[Path, bytes]] = {}
    for number, kind in inputs(count, seed):
        if number < first:
            continue
        if kind not in whole:
            whole[kind] = prepared(folder / "".join(c if c.isalnum() else "_" for c in kind), kind)
        rng = np.random.default_rng([seed, number])
        path, read, target, content = whole[kind](rng)
        _damage(target, content, rng)
        # The bound is an input's: libraries that an earlier one loaded stay mapped.
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        print(">", number, kind, flush=True)
        signal.alarm(6 * SECONDS)  # the clock's; a busy machine is not the reader's fault
        told: Any = outcome(path, read)
        signal.alarm(0)
        print("<", json.dumps(told), flush=True)


EVERYTHING = (*KINDS, *folders.FOLDERS, *commands.LINES)
Chosen = tuple[Path, Callable[[Path], object], Path, bytes]  # what is read, by what; the file to damage, its content


def prepared(folder: Path, kind: str) -> Callable[[np.random.Generator], Chosen]:
    """Makes a whole one, checks that it is read, and returns how to choose what of it is damaged."""
    whole = folder / "whole"
    whole.mkdir(parents=True)
    if kind in KINDS:
        name, make, read = KINDS[kind]
        path = whole / name
        make(path)
        sound = path.read_bytes()
        assert (told := outcome(path, read)) == "result", f"the whole {kind} is not read: {told}"
        return lambda rng: (path, read, path, sound)
    if kind in folders.FOLDERS:
        make, reader = folders.FOLDERS[kind]
    else:
        make, reader = commands.make, lambda path: commands.run(path.parent, commands.LINES[kind])
    make(whole)
    own = folder / "own"

    def fresh() -> None:
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(whole, own)

    if kind in folders.FOLDERS:
        fresh()
        assert (told := outcome(own / "x", lambda _: reader(own))) == "result", f"the whole {kind} is not read: {told}"
    else:
        with contextlib.suppress(PoseRftError):  # `predict` has no model; what it imports is no input's time
            reader(whole / "command")

    def choose(rng: np.random.Generator) -> Chosen:
        fresh()
        if kind in folders.FOLDERS:
            target = folders.file_of(own, rng)
            return own / "x", lambda _: reader(own), target, target.read_bytes()
        line = commands.damaged_line(kind, rng)
        target = commands.file_of(own, kind, rng)
        return own / "command", lambda _: commands.run(own, line), target, target.read_bytes()

    return choose


def _damage(path: Path, content: bytes, rng: np.random.Generator) -> None:
    try:
        damage(path, content, rng)
    except (PoseRftError, ValueError, TypeError, LookupError, AttributeError):  # content that cannot be written thus
        path.write_bytes(BYTES[int(rng.integers(len(BYTES)))](content or b"\0", rng))  # an empty file: one byte


if __name__ == "__main__":
    sys.addaudithook(_watch)
    child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
