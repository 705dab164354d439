"""Moves a finished conversion into place: it replaces an older one by a rename, and never anything else."""

import errno
import os
import re
import shutil
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.shards.manifest import MANIFEST, Manifest

OWN_NAME = re.compile(r"\d{5,}\.(tar|json)|index\.parquet|defects\.parquet|manifest\.json")


def check_replaceable(out: Path) -> None:
    """Refuses to replace a folder that holds anything but shards.

    Raises:
        PoseRftError: `out` exists and is not a conversion's; its content must not be lost.
    """
    if out.name in ("", ".."):
        raise PoseRftError(f"Shards cannot be written as {str(out)!r}; name a new folder.")
    if not out.exists() and not out.is_symlink():
        return
    what = "is a link" if out.is_symlink() else "is a file" if not out.is_dir() else None
    if what is None and any(out.iterdir()) and not _is_conversion(out):
        what = "holds something else than a conversion"
    if what is not None:
        raise PoseRftError(f"{out} {what}, so shards will not replace it; name a new folder, or move it away.")


def _is_conversion(folder: Path) -> bool:
    """Whether a folder has a valid manifest, or a damaged one beside nothing but a conversion's files."""
    try:
        Manifest.read(folder)
        return True
    except PoseRftError:
        ours = all(OWN_NAME.fullmatch(path.name) for path in folder.iterdir())
        return ours and (folder / MANIFEST).is_file()


def move(folder: Path, out: Path) -> None:
    """Replaces `out` by `folder` with a rename; across file systems, via a copy beside `out`.

    A kill never loses the complete shards: they stay in scratch until they are in place.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    old, copied = sweep(out)
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(folder, out)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(folder, copied)
        os.replace(copied, out)
    finally:
        if old.exists() and not out.exists():
            os.replace(old, out)
    sweep(out)
    shutil.rmtree(folder, ignore_errors=True)


def sweep(out: Path) -> tuple[Path, Path]:
    """Removes what a killed move left beside `out`; returns its paths for the old folder and the unfinished copy."""
    old, copied = (atomic.beside(out, kind) for kind in ("old", "new"))
    for left in (old, copied):
        shutil.rmtree(left, ignore_errors=True)
    return old, copied
