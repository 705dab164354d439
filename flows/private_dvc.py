"""DVC's cache of hashes in a folder of this account alone, for every DVC that is started from here.

DVC keeps what it knows of files (`site_cache_dir`) in /var/tmp/dvc, where everybody may write, and reads parts of it as
pickles (diskcache, CVE-2025-69872): another account of the machine could run code as whoever starts DVC. It is a cache
of this machine, so another folder costs one hashing of the data. `flows/__init__.py` calls `settle` before any DVC;
`make install` writes the same folder into `.dvc/config.local` (`python -m flows.private_dvc`) for `dvc` typed by hand.
"""

import os
import subprocess
import sys
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io.private import own_folder, problem_with

VARIABLE = "DVC_SITE_CACHE_DIR"
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python looks for an account's name before it asks the system


def settle() -> None:
    """Puts the folder, and a name for an account that has none (a container's), into this process's environment.

    A folder that the user's environment names is kept while nobody else can write into it.

    Raises:
        PoseRftError: no private folder can be made.
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
