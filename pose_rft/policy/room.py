"""Whether a model that params describe fits into this machine, known before a number of it is allocated."""

import os
from collections.abc import Callable

import torch
from torch import nn

from pose_rft.errors import PoseRftError

BYTES = 4  # of a weight; training takes several times as much
GIB = 1 << 30


def check_room(build: Callable[[], nn.Module], key: str) -> None:
    """Builds a model without numbers (torch's meta device) and compares its weights with the memory.

    Raises:
        PoseRftError: the weights alone are more than the machine's memory; `key`: where params give the sizes.
    """
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build().parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if BYTES * parameters > memory:
        raise PoseRftError(
            f"`{key}` describes a model of {parameters:.3g} parameters, whose weights alone take "
            f"{BYTES * parameters / GIB:.0f} GiB; this machine has {memory / GIB:.0f} GiB; choose smaller sizes."
        )
