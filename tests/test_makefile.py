"""`make` in the folders that people have: C5, C6, G2's sed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.dvc_graph import read_graph

ROOT = Path(__file__).resolve().parent.parent
FILES = ("Makefile", "constraints.txt", "requirements.lock", "pyproject.toml")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "GIT_"))}
    kept["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    return subprocess.run(["make", *arguments], cwd=folder, env=kept, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What make reads, in a path with a space and more that a shell takes apart."""
    folder = tmp_path / "my clone ($HOME; it's)"
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def test_make_runs_the_tools_of_its_own_folder_wherever_that_lies(clone: Path) -> None:  # C5
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    (clone / ".venv/bin").mkdir(parents=True)
    for name in ("dvc", "pose-rft", "ruff", "mypy", "pytest", "python"):
        tool = clone / ".venv/bin" / name
        tool.write_text(f'#!/bin/sh\necho "own {name} $*"\n')
        tool.chmod(0o755)
    (clone / ".venv/.installed").touch()
    for target, called in (
        ("run", ["own dvc --wait-for-lock repro", "own pose-rft tables"]),
        ("diff", ["own python -m flows.metrics_diff HEAD"]),
        ("lint", ["own ruff check .", "own mypy"]),
        ("test", ["own pytest -m not slow and not pipeline", "own pytest -m pipeline and not slow"]),
    ):
        done = make(clone, target)
        assert done.returncode == 0, (target, done.stdout, done.stderr)
        for line in called:
            assert line in done.stdout


def test_what_run_makes_side_by_side_finds_its_inputs_made() -> None:
    graph = read_graph(ROOT)
    made: set[str] = set()
    beside: list[str] = []
    for words in map(str.split, make(ROOT, "--dry-run", "run").stdout.splitlines()):
        if "--single-item" in words:
            there = set(made)
            for name in words[words.index("--single-item") + 1 :]:
                assert set(graph.upstream[name]) <= there, f"{name} may start before what it needs"
                there.add(name)
                beside.append(name)
        elif "make" in words[0] or "repro" in words:
            made.update(beside)
            beside.clear()
        if "repro" in words and "--single-item" not in words:
            made |= graph.before(set(words[words.index("repro") + 1 :]) or set(graph.upstream))
    assert made == set(graph.upstream)


def test_without_a_git_repository_nothing_is_installed(clone: Path) -> None:  # C6
    done = make(clone, "run", f"PYTHON={sys.executable}")
    assert done.returncode == 2 and "is no git repository" in done.stderr and "git clone" in done.stderr
    assert not (clone / ".venv").exists()
