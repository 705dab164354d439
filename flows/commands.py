"""Git and DVC as commands: what they do to a working folder they do in a process of their own."""

import subprocess
import sys
from pathlib import Path


def git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`git ARGUMENTS` in `root`; the caller looks at its return code."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)


def dvc(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`dvc ARGUMENTS` in `root`, when no other DVC is busy there; the caller looks at its return code."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)
