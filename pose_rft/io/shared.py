"""Folders that several accounts of one group share: what one makes there, the others must be able to replace."""

import os
import stat
from pathlib import Path

SHARED = stat.S_ISGID | stat.S_IWGRP


def share_with_group(*folders: str | None) -> None:
    """Lets new files of this process be written by their group where one of these folders is shared by a group.

    A folder is, when it hands its group on (setgid) and its group may write; with the usual umask of 022 the first
    account's folders in it would be closed to the second.
    """
    for folder in folders:
        if folder and Path(folder).is_dir() and Path(folder).stat().st_mode & SHARED == SHARED:
            os.umask(os.umask(0o077) & ~0o070 | 0o002)
            return
