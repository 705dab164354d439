"""DVC's notes of files are pickles that others could plant: S22, and an account without a name: B7."""

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows import private_dvc
from flows.commands import dvc
from pose_rft.validation import machine
from tests.support import toy

pytestmark = pytest.mark.pipeline

STAGES = 'stages:\n  a: {cmd: "echo a > a.txt", deps: [seed.txt], outs: [a.txt]}\n'


class Gadget:
    """Makes a folder where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def plant(notes: Path, marker: Path) -> int:
    """DVC's notes of the files that it has linked become pickles that make `marker`; returns how many there were."""
    changed = 0
    for database in notes.rglob("links/cache.db"):
        with sqlite3.connect(database) as connection:
            row = (sqlite3.Binary(pickle.dumps(Gadget(marker))),)
            changed += connection.execute("UPDATE Cache SET key = 'seed.txt', mode = 4, value = ?", row).rowcount
    return changed


def test_a_pickle_in_a_folder_that_others_can_write_never_runs(tmp_path, monkeypatch):  # S22
    root = toy.make(tmp_path / "toy", STAGES)
    opened, marker = tmp_path / "open", tmp_path / "ran"
    opened.mkdir()
    opened.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(private_dvc.VARIABLE, str(opened))
    toy.run(root, "dvc", "repro", "-q")
    assert plant(opened, marker) > 0
    toy.run(root, "dvc", "checkout", check=False)
    assert marker.exists(), "the plant is no real one"
    marker.rmdir()
    plant(opened, marker)
    private_dvc.settle()
    for verb in ("status", "repro", "checkout"):
        assert dvc(root, verb).returncode == 0
    assert not marker.exists()
    assert os.environ[private_dvc.VARIABLE] == str(tmp_path / "cache/pose-rft/dvc")


def test_tests_and_benchmarks_keep_their_notes_in_private():
    assert machine.problem_with(Path(os.environ[private_dvc.VARIABLE])) is None  # tests/conftest.py
    code = f"import os, benchmarks.study; print(os.environ['{private_dvc.VARIABLE}'])"
    without = {name: value for name, value in os.environ.items() if name != private_dvc.VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], cwd=toy.ROOT, env=without, capture_output=True, text=True)
    assert machine.problem_with(Path(done.stdout.strip())) is None, done.stderr


def test_an_account_without_a_name_gets_one(monkeypatch):  # B7
    for name in private_dvc.NAMES:
        monkeypatch.setenv(name, "")
    private_dvc.settle()
    assert os.environ["LOGNAME"] == f"uid-{os.getuid()}"


def test_doctor_machine_sees_open_notes_and_dvcs_own_default(tmp_path, monkeypatch):
    root = toy.make(tmp_path / "toy", STAGES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(private_dvc.VARIABLE, raising=False)

    def notes() -> machine.Finding:
        return next(finding for finding in machine.examine(root) if finding.what == "DVC's notes")

    assert "everybody on this machine" in notes().state and "private_dvc" in str(notes().problem)
    opened = tmp_path / "open"
    opened.mkdir()
    opened.chmod(0o777)
    toy.run(root, "dvc", "config", "--local", "core.site_cache_dir", str(opened))
    assert "others can write into it" in notes().state
    toy.run(root, sys.executable, "-m", "flows.private_dvc", PYTHONPATH=str(root))
    assert notes().problem is None and notes().state == str(tmp_path / "cache/pose-rft/dvc")


def test_without_git_or_without_a_repository_the_remedy_is_named(tmp_path, monkeypatch):  # C6
    assert "git clone" in str(machine.examine(tmp_path)[0].problem)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install git" in str(machine.examine(tmp_path)[0].problem)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be a second account")
def test_another_owners_clone_is_named_and_how_to_trust_it(tmp_path, monkeypatch):  # C11
    toy.run(tmp_path, "git", "init", "-q")
    for path in [tmp_path, *tmp_path.rglob("*")]:
        shutil.chown(path, 65534)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    assert "safe.directory" in str(machine.examine(tmp_path)[0].problem)
    command = [sys.executable, "-m", "flows.metrics_diff", "HEAD"]
    done = toy.run(tmp_path, *command, check=False, PYTHONPATH=str(toy.ROOT))
    assert done.returncode == 1 and "safe.directory" in done.stderr and "Traceback" not in done.stderr
