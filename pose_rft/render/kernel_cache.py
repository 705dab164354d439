"""Where compiled kernels are kept: warp's own place, unless this user cannot write there."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def private_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """A folder of this user's own for warp's kernels, made if needed; None where warp's choice works.

    A container may run under a user id that has no entry in passwd and so no home, or with a home that cannot be
    written. What others could have put there is never taken: a compiled kernel is code.
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
    """Whether the folder, or the nearest one above it that exists, can be written."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return folder.is_absolute() and existing.is_dir() and os.access(existing, os.W_OK)
