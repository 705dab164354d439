"""Folders shared by several accounts of one group: each must be able to replace what the others create there."""

import os
import stat
from pathlib import Path

SHARED = stat.S_ISGID | stat.S_IWGRP


def share_with_group(*folders: str | None) -> None:
    """Makes new files of this process group-writable if any of these folders is shared by a group.

    A folder is shared if it is setgid (new files inherit its group) and group-writable. With the usual umask of 022,
    one account's sub-folders would not be writable for the others.
    """
    for folder in folders:
        if folder and Path(folder).is_dir() and Path(folder).stat().st_mode & SHARED == SHARED:
            os.umask(os.umask(0o077) & ~0o070 | 0o002)
            return
