"""File names that come from inside a release: joined to its folder only if they stay in it."""

from pathlib import Path, PurePosixPath

from pose_rft.errors import PoseRftError


def inside(folder: Path, name: object) -> Path:
    """`folder / name` for a relative name without `..`.

    Raises:
        PoseRftError: the name is no text, absolute, climbs out of the folder, or holds a NUL or a backslash.
    """
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise PoseRftError(f"A release names the file {name!r:.80}, which is no file name; get its annotations again.")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or len(name) > 1024:
        raise PoseRftError(
            f"A release names the file {name!r:.80}, which lies outside its folder; get its annotations again."
        )
    return folder / parts
