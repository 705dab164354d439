"""Checks whether a model described by params fits into this machine's memory, before allocating any of it."""

import os
from collections.abc import Callable

import torch
from torch import nn

from pose_rft.errors import PoseRftError

BYTES = 4  # of a weight; training takes several times as much
GIB = 1 << 30


def check_room(build: Callable[[], nn.Module], key: str) -> None:
    """Builds a model on torch's meta device and compares the size of its weights with the machine's memory.

    Raises:
        PoseRftError: the weights alone exceed the machine's memory; `key`: the params that set the sizes.
    """
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build().parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if BYTES * parameters > memory:
        raise PoseRftError(
            f"`{key}` describes a model of {parameters:.3g} parameters, whose weights alone take "
            f"{BYTES * parameters / GIB:.0f} GiB; this machine has {memory / GIB:.0f} GiB; choose smaller sizes."
        )
