"""Third-party torch checkpoints (`.ckpt`, `.pth`): tensors and plain containers; no code from the file is run."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.parsing import DAMAGE


def read_checkpoint(path: Path, wanted: str, allowed: Sequence[Any] = (), stand_in: Any = None) -> dict[str, Any]:
    """Loads `path` on the CPU with torch's restricted loader.

    Args:
        wanted: what the file should be, for error messages, e.g. `a PoseScript checkpoint`.
        allowed: classes that the file may contain besides tensors and containers.
        stand_in: replaces every other class, if given; classes that the file names are never imported.
    Raises:
        PoseRftError: no such file, objects that are not allowed, or an archive that torch finds damaged.
    """
    import torch
    from torch import serialization

    door.check_file(path)
    try:
        foreign = [] if stand_in is None else serialization.get_unsafe_globals_in_checkpoint(str(path))
        with serialization.safe_globals([*allowed, *((stand_in, name) for name in foreign)]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise PoseRftError(
            f"{path} cannot be read as {wanted}: it is damaged, or holds objects that are no weights; download it "
            "again, or save its weights alone."
        ) from None
    except (*DAMAGE, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PoseRftError(f"{path} cannot be read as {wanted} ({reason}); download it again.") from None
    if not isinstance(content, dict):
        raise PoseRftError(f"{path} is not {wanted}: expected a dictionary, found {type(content).__name__}.")
    return content
