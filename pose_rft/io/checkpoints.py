"""Foreign files of torch (`.ckpt`, `.pth`): tensors and plain containers, and nothing of a file's own is run."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.parsing import DAMAGE


def read_checkpoint(path: Path, wanted: str, allowed: Sequence[Any] = (), stand_in: Any = None) -> dict[str, Any]:
    """What torch's restricted loader makes of `path`, on the CPU.

    Args:
        wanted: what it should be, e.g. `a PoseScript checkpoint`.
        allowed: the classes that may stand in it beside tensors and containers.
        stand_in: takes the place of every other class, if given; no class of the file's own is ever imported.
    Raises:
        PoseRftError: no such file, objects that are not allowed, or whatever torch says of a damaged archive.
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
