"""params.yaml as it stands, unchecked; apart from `params`, as pydantic takes longer to load than `inventory` runs."""

import os
from pathlib import Path
from typing import Any

import yaml

from pose_rft.core.errors import PoseRftError

# Ten times as fast where PyYAML was built with libyaml.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def params_path() -> Path:
    """params.yaml of the working folder, or the file that `POSE_RFT_PARAMS` names (tests, `pose-rft plan`)."""
    return Path(os.environ.get("POSE_RFT_PARAMS", "params.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The whole file as a mapping.

    Raises:
        PoseRftError: no such file, not YAML, or not a mapping.
    """
    try:
        content = yaml.load(path.read_text(), LOADER)
    except FileNotFoundError:
        raise PoseRftError(f"{path} does not exist; copy one of presets/*.yaml to params.yaml.") from None
    except yaml.YAMLError as error:
        raise PoseRftError(f"{path} is not valid YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise PoseRftError(f"{path} holds {type(content).__name__}, expected sections such as `data:` and `sft:`.")
    return content
