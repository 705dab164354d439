"""Makes an agent's fresh clone use the shared DVC cache: `python -m flows.workspace`, a pull step of prefect.yaml.

Files in a shared cache are checked against their hash; DVC's own file metadata is private (`private_dvc.py`).

`POSE_RFT_CACHE` is the shared cache's folder on this agent; if it is not set, the clone's configuration (a default
remote) stays unchanged.
"""

import os
import subprocess
import sys


def main() -> None:
    cache = os.environ.get("POSE_RFT_CACHE")
    settings = {"cache.dir": cache, "cache.type": "hardlink,symlink,copy", "cache.shared": "group"} if cache else {}
    for name, value in settings.items():
        subprocess.run([sys.executable, "-m", "dvc", "config", "--local", name, str(value)], check=True)


if __name__ == "__main__":
    main()
