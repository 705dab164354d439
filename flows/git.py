"""What flows ask git."""

import subprocess
from pathlib import Path


def git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`git ARGUMENTS` in `root`; the caller looks at its return code."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
