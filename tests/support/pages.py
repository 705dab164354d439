"""The fenced blocks of the documents, and a shell into which they are pasted."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: Path, language: str = r"\w*") -> list[str]:
    """The contents of the page's fenced blocks of one language (default: of any)."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def readme_block(holding: str) -> str:
    """The one block of the README's commands that has these words."""
    (block,) = (block for block in blocks(ROOT / "README.md", "bash") if holding in block)
    return block


def paste(block: str, folder: Path, **environment: str) -> str:
    """Runs a block in a fresh bash with nothing of this process's environment; returns what it printed.

    The folder gets this interpreter's environment as its `.venv`. The block stops at the first command that fails.
    """
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(Path(sys.prefix))
    clean = {"HOME": os.environ["HOME"], "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
