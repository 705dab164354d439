"""Where ranks must pass the model equally often: under ZeRO-3, which keeps a part of every weight on each rank.

A pass through the model is then collective, and a rank that leaves one out keeps the others waiting for ever. Whoever
may skip a pass (no picture to encode, all answers ended) asks here, and nobody else needs to know.
"""

import torch
from torch import nn


def passes_are_collective(model: nn.Module) -> bool:
    """Whether the weights are cut up over the ranks (DeepSpeed numbers such parameters)."""
    return hasattr(next(model.parameters()), "ds_id")


def done_on_every_rank(model: nn.Module, done: bool) -> bool:
    """Whether a rank that is `done` may stop passing the model; where passes are collective, when all ranks are.

    Every rank must ask equally often.
    """
    if not passes_are_collective(model) or torch.distributed.get_world_size() == 1:
        return done
    waiting = torch.tensor(0 if done else 1, device=next(model.parameters()).device)
    torch.distributed.all_reduce(waiting)
    return int(waiting) == 0
