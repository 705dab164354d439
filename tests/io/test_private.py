"""Folders of this account alone: S17 and what else believes what lies in a folder."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io.private import own_folder, private_folder, problem_with
from tests.support import second_account


def as_file(path: Path) -> None:
    path.write_text("mine")


def as_link_to_a_folder(path: Path) -> None:
    (path.parent / "theirs").mkdir()
    path.symlink_to(path.parent / "theirs")


def as_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def as_open_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def as_group_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


PLANTED = [as_file, as_link_to_a_folder, as_dangling_link, as_open_folder, as_group_folder]


@pytest.mark.parametrize("plant", PLANTED)
def test_what_another_may_have_planted_is_one_sentence_and_stays_as_it_is(tmp_path, plant):  # S17
    path = tmp_path / "planted"
    plant(path)
    before = path.lstat()
    with pytest.raises(PoseRftError, match=f"{path}.*remove it"):
        private_folder(path)
    assert path.lstat().st_mode == before.st_mode and not (tmp_path / "nowhere").exists()
    assert problem_with(path)


def test_a_private_folder_is_made_whatever_the_umask_and_a_readable_one_is_closed(tmp_path):
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "made")
    finally:
        os.umask(before)
    (tmp_path / "readable").mkdir(mode=0o755)
    for folder in (made, private_folder(tmp_path / "readable")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and problem_with(folder) is None


def test_without_a_home_the_temporary_folder_serves(tmp_path, monkeypatch):  # B7
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert own_folder("x", lasting=True) == tmp_path / f"pose-rft-{os.getuid()}" / "x"
    monkeypatch.setenv("HOME", "/proc/nowhere")
    assert own_folder("y", lasting=True) == tmp_path / f"pose-rft-{os.getuid()}" / "y"


def test_a_runtime_folder_is_preferred_for_what_need_not_last(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert own_folder("x", lasting=False) == tmp_path / "run/pose-rft/x"
    assert own_folder("x", lasting=True) == tmp_path / "cache/pose-rft/x"


@second_account.needs_root
def test_a_second_account_reads_nothing_of_it(tmp_path):
    folder = private_folder(tmp_path / "mine")
    (folder / "secret").write_text("s")
    for above in [tmp_path, *tmp_path.parents][:3]:
        above.chmod(above.stat().st_mode | 0o055)
    code = "import os\ntry:\n    print(os.listdir(sys.argv[1]))\nexcept OSError:\n    print('refused')"
    assert second_account.run(code, str(folder)).strip() == "refused"
