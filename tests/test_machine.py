"""`pose-rft doctor machine`: what is not as it should be is named with its remedy."""

import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pose_rft.cli import app
from pose_rft.validation import machine


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose notes are its own, in a home that can be written: nothing to complain of."""
    root = tmp_path / "checkout"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for name in ("POSE_RFT_CACHE", "POSE_RFT_SCRATCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notes = tmp_path / "notes"
    notes.mkdir(mode=0o700)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(notes))
    monkeypatch.chdir(root)
    return root


def no_home(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("HOME")


def no_name(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pwd, "getpwuid", {}.__getitem__)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        patch.delenv(name, raising=False)


def open_secrets(root: Path, patch: pytest.MonkeyPatch) -> None:
    (root / ".prefect").mkdir()
    (root / ".prefect").chmod(0o777)


def no_scratch(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("POSE_RFT_SCRATCH", str(root / "nowhere"))


def shared_notes(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("DVC_SITE_CACHE_DIR", str(machine.SHARED_BY_ALL))


def no_repository(root: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    (root / "below").mkdir()
    (root / ".git").rename(root / "moved")


def damaged_settings(root: Path, patch: pytest.MonkeyPatch) -> None:
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_bytes(b"\xff\xfe[[[")
    patch.delenv("DVC_SITE_CACHE_DIR")


def test_a_machine_as_it_should_be_is_ok(checkout: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "machine"])
    assert done.exit_code == 0, done.output
    assert "PROBLEM" not in done.output and "this folder is a repository" in done.output


@pytest.mark.parametrize(
    ("spoil", "what", "remedy"),
    [
        (no_home, "HOME", "export HOME="),
        (no_name, "account", "export USER=me"),
        (open_secrets, "secrets", "pose-rft down"),
        (no_scratch, "POSE_RFT_SCRATCH", "mkdir -p"),
        (shared_notes, "DVC's notes", "flows.private_dvc"),
        (no_repository, "git", "git clone"),
        (damaged_settings, "DVC's notes", "flows.private_dvc"),
    ],
)
def test_what_is_not_is_named_with_its_remedy(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable, what: str, remedy: str
) -> None:
    spoil(checkout, monkeypatch)
    done = CliRunner().invoke(app, ["doctor", "machine"])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    lines = done.output.splitlines()
    (problem,) = [i for i, line in enumerate(lines) if line.startswith(f"PROBLEM  {what} ")]
    assert remedy in lines[problem + 1]
    assert sum(line.startswith("PROBLEM") for line in lines) == 1
