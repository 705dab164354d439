"""Every random number derives from (seed, purpose), never from global state or from the order of execution.

So a different training seed re-renders nothing, any number of workers draws the same numbers, and a resumed run
draws the numbers that the uninterrupted run would have drawn.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # both are heavy, and `inventory` must start at once
    import numpy as np
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Returns a 63-bit seed for one purpose, e.g. `derive(params.seed.train, "sft", "mixture", step)`."""
    text = "\x1f".join([str(int(seed)), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_rng(seed: int, *purpose: str | int) -> "np.random.Generator":
    """Returns a numpy generator for one purpose."""
    import numpy as np

    return np.random.default_rng(derive(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int, device: "str | torch.device" = "cpu") -> "torch.Generator":
    """Returns a torch generator for one purpose."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))
