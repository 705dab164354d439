"""Folders that only this account can access: for locks, secrets, and caches whose content is trusted.

Under /tmp, another account can create the name first, as a file, a link, or a world-writable folder with content.
Such a path is neither used nor changed.
"""

import os
import stat
import tempfile
from pathlib import Path

from pose_rft.errors import PoseRftError

WRITABLE_BY_OTHERS = 0o022


def private_folder(path: Path) -> Path:
    """Returns `path` with mode 0700, creating it if missing.

    Raises:
        PoseRftError: it cannot be created, is not a folder (or is a link to one), belongs to another account, or was
            writable by others until now.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PoseRftError(f"{path} cannot be a private folder of this account ({reason}); remove it.") from None
    try:
        facts = os.fstat(folder)
        if facts.st_uid != os.getuid():
            raise PoseRftError(f"{path} belongs to account {facts.st_uid}, expected {os.getuid()}; remove it.")
        if facts.st_mode & WRITABLE_BY_OTHERS:
            raise PoseRftError(
                f"Others could write into {path} (mode {stat.S_IMODE(facts.st_mode):04o}); look what is in it, and "
                "remove it."
            )
        os.fchmod(folder, 0o700)
    finally:
        os.close(folder)
    return path


def own_folder(name: str, lasting: bool) -> Path:
    """Returns a private folder of this account on this machine, outside any project.

    Args:
        lasting: prefer XDG_CACHE_HOME (`~/.cache`); otherwise prefer XDG_RUNTIME_DIR, if set, which is emptied at
            logout and not shared with other machines. Falls back to the temporary folder if none can be written.
    Raises:
        PoseRftError: as `private_folder`, for the temporary folder.
    """
    home = Path(os.environ["HOME"]) / ".cache" if os.environ.get("HOME") else None
    named = ("XDG_CACHE_HOME",) if lasting else ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME")
    bases = [Path(os.environ[variable]) for variable in named if os.environ.get(variable)]
    for base in [*bases, *([home] if home else [])]:
        try:
            return private_folder(private_folder(base / "pose-rft") / name)
        except PoseRftError:
            continue
    return private_folder(private_folder(Path(tempfile.gettempdir()) / f"pose-rft-{os.getuid()}") / name)


def problem_with(path: Path) -> str | None:
    """Describes why other accounts may have written to this folder, or still can; None if they cannot."""
    try:
        facts = path.lstat()
    except OSError as error:
        return None if isinstance(error, FileNotFoundError) else f"it cannot be looked at ({error.strerror})"
    if not stat.S_ISDIR(facts.st_mode):
        return "it is no folder, or a link to one"
    if facts.st_uid != os.getuid():
        return f"it belongs to account {facts.st_uid}"
    return "others can write into it" if facts.st_mode & WRITABLE_BY_OTHERS else None
