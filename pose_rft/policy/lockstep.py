"""Keeps ranks in lockstep under ZeRO-3, which shards every weight: each must run the model equally often.

A forward pass is then a collective operation, and a rank that skips one makes the others wait forever. Code that may
skip a pass (no image to encode, all answers finished) asks here; no other code needs to know.
"""

import torch
from torch import nn


def passes_are_collective(model: nn.Module) -> bool:
    """Whether the weights are sharded over the ranks (DeepSpeed gives such parameters an id)."""
    return hasattr(next(model.parameters()), "ds_id")


def done_on_every_rank(model: nn.Module, done: bool) -> bool:
    """Whether a rank that is `done` may stop running the model; if passes are collective, only once all ranks are.

    Every rank must call this equally often.
    """
    if not passes_are_collective(model) or torch.distributed.get_world_size() == 1:
        return done
    waiting = torch.tensor(0 if done else 1, device=next(model.parameters()).device)
    torch.distributed.all_reduce(waiting)
    return int(waiting) == 0
