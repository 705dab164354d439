"""Chooses where compiled kernels are cached: warp's default folder, unless this user cannot write there."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def private_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns a private folder for warp's kernels, created if needed; None if warp's default works.

    A container may run under a user id without a passwd entry and hence without a home, or with a read-only home. A
    folder that others could write to is never used: a compiled kernel is code.
    """
    if environment.get("WARP_CACHE_PATH"):
        return None
    try:
        if _writable(Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()):
            return None
    except RuntimeError:  # nobody knows where the home is
        pass
    folder = Path(tempfile.gettempdir()) / f"pose-rft-kernels-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o077 and not folder.is_symlink():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="pose-rft-kernels-"))


def _writable(folder: Path) -> bool:
    """Whether the folder, or its nearest existing ancestor, is writable."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return folder.is_absolute() and existing.is_dir() and os.access(existing, os.W_OK)
