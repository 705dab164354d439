"""Makes an agent's fresh clone share its DVC cache: `python -m flows.workspace`, a pull step of prefect.yaml.

What lies in a shared cache is checked against its hash; DVC's own notes of files are private (`private_dvc.py`).

`POSE_RFT_CACHE` is the shared cache's folder on this agent; where it is not set, the clone's configuration (a default
remote) stays as it is.
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
