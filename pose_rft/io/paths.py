"""File names that a release's own files contain: joined to its folder only if they stay inside it."""

from pathlib import Path, PurePosixPath

from pose_rft.errors import PoseRftError


def inside(folder: Path, name: object) -> Path:
    """Returns `folder / name` for a relative name without `..`.

    Raises:
        PoseRftError: the name is not text, is absolute or too long, or contains `..`, a NUL or a backslash.
    """
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise PoseRftError(f"A release names the file {name!r:.80}, which is no file name; get its annotations again.")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or len(name) > 1024:
        raise PoseRftError(
            f"A release names the file {name!r:.80}, which lies outside its folder; get its annotations again."
        )
    return folder / parts
