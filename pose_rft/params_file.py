"""Reads params.yaml unvalidated; separate from `params`, as importing pydantic takes longer than `inventory` runs."""

import os
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import door, yaml_files


def params_path() -> Path:
    """Returns params.yaml in the working folder, or the file that `POSE_RFT_PARAMS` names (set by tests)."""
    return Path(os.environ.get("POSE_RFT_PARAMS", "params.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads the whole file as a mapping.

    Raises:
        PoseRftError: the file does not exist, is not UTF-8 YAML, or is not a mapping.
    """
    try:
        content = yaml_files.read_yaml(path)
    except door.Missing:
        raise PoseRftError(f"{path} does not exist; copy one of presets/*.yaml to params.yaml.") from None
    if not isinstance(content, dict):
        raise PoseRftError(f"{path} holds {type(content).__name__}, expected sections such as `data:` and `sft:`.")
    return content


def section(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a section of the content that `read_yaml` returned; empty if it is missing.

    Raises:
        PoseRftError: the section is not a mapping.
    """
    found = content.get(name)
    if not isinstance(found, dict | None):
        raise PoseRftError(f"`{name}` in {params_path()} is {found!r:.60}, expected a section such as `{name}: {{}}`.")
    return found or {}
