"""JSON annotation files of releases: parsed within bounds, and checked for what stands at their top."""

import json
from pathlib import Path
from typing import Any

from pose_rft.core.errors import PoseRftError
from pose_rft.io import limits


def read_json(path: Path, kind: type | None = None) -> Any:
    """The content of a file; `kind`: dict or list, what its top must be.

    Raises:
        PoseRftError: no such file, not JSON, nested absurdly, or another kind at its top.
    """
    try:
        with limits.bounded(path):
            content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PoseRftError(f"{path} does not exist.") from None
    except OSError as error:
        raise PoseRftError(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise PoseRftError(f"{path} is not JSON ({' '.join(str(error).split())[:120]}); download it again.") from None
    if kind is not None and not isinstance(content, kind):
        raise PoseRftError(f"{path} holds a {type(content).__name__}, expected a {kind.__name__}; download it again.")
    return content
