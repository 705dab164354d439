"""params.yaml as it stands, unchecked; apart from `params`, as pydantic takes longer to load than `inventory` runs."""

import os
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import door, yaml_files


def params_path() -> Path:
    """params.yaml of the working folder, or the file that `POSE_RFT_PARAMS` names (tests, `pose-rft plan`)."""
    return Path(os.environ.get("POSE_RFT_PARAMS", "params.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The whole file as a mapping.

    Raises:
        PoseRftError: no such file, not YAML in UTF-8, or not a mapping.
    """
    try:
        content = yaml_files.read_yaml(path)
    except door.Missing:
        raise PoseRftError(f"{path} does not exist; copy one of presets/*.yaml to params.yaml.") from None
    if not isinstance(content, dict):
        raise PoseRftError(f"{path} holds {type(content).__name__}, expected sections such as `data:` and `sft:`.")
    return content


def section(content: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a file that `read_yaml` read; empty where there is none.

    Raises:
        PoseRftError: it is no mapping.
    """
    found = content.get(name)
    if not isinstance(found, dict | None):
        raise PoseRftError(f"`{name}` in {params_path()} is {found!r:.60}, expected a section such as `{name}: {{}}`.")
    return found or {}
