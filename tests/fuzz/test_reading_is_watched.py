"""What a reader opens is in its inventory, through links too; else a file that changes goes unnoticed (A1, A5, C1, C8).

The kernel says which files were opened (inotify), whatever library opened them.
"""

import ctypes
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.io.find import files_below
from pose_rft.record import Defect, Record
from pose_rft.shards.inventory import take_inventory
from tests.fuzz.test_fuzz_readers import SETTINGS

IN_OPEN, IS_FOLDER, OVERFLOW = 0x20, 0x40000000, 0x4000
EVENT = struct.Struct("iIII")


class Opened:
    """The files below a folder that this process (or any) opens inside the block, as real paths."""

    def __init__(self, root: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._queue >= 0
        self._folders = {}
        for folder, _, _ in os.walk(root):
            number = self._libc.inotify_add_watch(self._queue, os.fsencode(folder), IN_OPEN)
            assert number >= 0
            self._folders[number] = Path(folder).resolve()
        self.files: set[Path] = set()

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        while content := self._read():
            while content:
                number, kind, _, length = EVENT.unpack_from(content)
                name = content[EVENT.size : EVENT.size + length].rstrip(b"\0")
                content = content[EVENT.size + length :]
                assert not kind & OVERFLOW
                if name and not kind & IS_FOLDER:
                    self.files.add(self._folders[number] / os.fsdecode(name))
        os.close(self._queue)

    def _read(self) -> bytes:
        try:
            return os.read(self._queue, 1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture(scope="module")
def plain(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases that no other test has read, so that nothing of them is in a cache."""
    return Path(shutil.copytree(miniatures, tmp_path_factory.mktemp("plain") / "releases"))


@pytest.fixture(scope="module")
def linked(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, put together from links, with a link in a circle and what macOS leaves beside each file."""
    store, root = (tmp_path_factory.mktemp(name) for name in ("store", "linked"))
    for number, release in enumerate(sorted(path for path in miniatures.iterdir() if path.is_dir())):
        outer = store / f"{number} outer"
        outer.mkdir()
        for inner in release.iterdir():
            if inner.is_dir():
                kept = store / f"{number} inner {inner.name}"
                shutil.copytree(inner, kept)
                (outer / inner.name).symlink_to(kept)
                (kept / "round and round").symlink_to(outer)
            else:
                shutil.copy(inner, outer)
        (root / release.name).symlink_to(outer)
    for path in [path for path in store.rglob("*") if path.is_file() and not path.is_symlink()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7macOS")
    return root


def opened(root: Path, bodies: Path, dataset: str):
    return open_release(
        dataset, DataParams(source="releases", root=root, body_model=bodies), {dataset: SETTINGS[dataset]}, 92
    )


def rows(root: Path, bodies: Path, dataset: str) -> list[str]:
    """Keys of all samples and texts of all defects, in order."""
    release, found = opened(root, bodies, dataset), []
    for split in release.params.splits:
        for unit in release.units(split):
            for row in release.read(unit, split):
                assert isinstance(row, Record | Defect)
                found.append(row.key if isinstance(row, Record) else str(row))
    return found


def real(paths: list[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
@pytest.mark.parametrize("dataset", SETTINGS)
def test_every_file_that_a_reader_opens_is_in_its_inventory(plain: Path, bodies: Path, dataset: str) -> None:
    watched = real(opened(plain, bodies, dataset).inventory())
    with Opened(plain) as seen:
        assert rows(plain, bodies, dataset)
    assert seen.files and not seen.files - watched


@pytest.mark.parametrize("dataset", SETTINGS)
def test_links_and_what_macos_leaves_change_nothing_of_what_is_read(
    plain: Path, linked: Path, bodies: Path, dataset: str
) -> None:
    assert rows(linked, bodies, dataset) == rows(plain, bodies, dataset)


@pytest.mark.parametrize("dataset", SETTINGS)
def test_a_file_behind_links_is_watched_like_any_other(plain: Path, linked: Path, bodies: Path, dataset: str) -> None:
    names = {path.name for path in real(opened(plain, bodies, dataset).inventory())}
    found = opened(linked, bodies, dataset).inventory()
    # The links in a circle lead from a folder of pictures to other files, too.
    assert names <= {path.name for path in real(found)}
    before = take_inventory(dataset, linked, found).digest
    target = min(path for path in real(found) if path.stat().st_size > 0)
    kept = target.stat()
    os.utime(target, (1, 1))
    assert take_inventory(dataset, linked, opened(linked, bodies, dataset).inventory()).digest != before
    os.utime(target, ns=(kept.st_atime_ns, kept.st_mtime_ns))


def test_a_linked_body_model_is_watched(bodies: Path, tmp_path: Path) -> None:  # A1
    kept = Path(shutil.copytree(bodies, tmp_path / "kept"))
    (tmp_path / "body").mkdir()
    (tmp_path / "body/smpl").symlink_to(kept / "smpl")
    files = list(files_below(tmp_path / "body"))
    assert {Path(path).name for path in files} == {path.name for path in (kept / "smpl").iterdir()}
    before = take_inventory("any", tmp_path, files).digest
    os.utime(kept / "smpl/SMPL_NEUTRAL.pkl", (1, 1))
    assert take_inventory("any", tmp_path, files_below(tmp_path / "body")).digest != before
