"""Keeps DVC's hash cache in a folder private to this account, for every DVC process started from here.

DVC keeps its file metadata (`site_cache_dir`) in the world-writable /var/tmp/dvc and reads parts of it as pickles
(diskcache, CVE-2025-69872): another account on the machine could run code as the user who starts DVC. The cache is
local to the machine, so moving it only costs hashing the data once. `flows/__init__.py` calls `settle` before any DVC;
`make install` writes the same folder into `.dvc/config.local` (`python -m flows.private_dvc`) for `dvc` typed by hand.
"""

import os
import subprocess
import sys
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io.private import own_folder, problem_with

VARIABLE = "DVC_SITE_CACHE_DIR"
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks for a user name before it asks the system


def settle() -> None:
    """Sets the folder, and a user name if the account has none (in a container), in this process's environment.

    A folder that the environment already names is kept if nobody else can write to it.

    Raises:
        PoseRftError: no private folder can be created.
    """
    named = os.environ.get(VARIABLE)
    if named is None or problem_with(Path(named)):
        os.environ[VARIABLE] = str(own_folder("dvc", lasting=True))
    if not any(os.environ.get(name) for name in NAMES):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def main() -> None:
    folder = own_folder("dvc", lasting=True)
    command = [sys.executable, "-m", "dvc", "config", "--local", "core.site_cache_dir", str(folder)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    try:
        main()
    except PoseRftError as error:
        sys.exit(f"error: {error}")
