"""Runs git and DVC as subprocesses, so that changing the working directory does not affect this process."""

import subprocess
import sys
from pathlib import Path


def git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs `git ARGUMENTS` in `root`; the caller checks the return code."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)


def dvc(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs `dvc ARGUMENTS` in `root` once no other DVC holds its lock; the caller checks the return code."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)
