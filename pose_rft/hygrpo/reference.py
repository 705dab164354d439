"""The frozen reference policy of the KL terms; with LoRA it needs no second language model.

With LoRA the reference is the same network with its newest adapters off and frozen copies of the few parts that are
trained outside them (projectors, pose head, `<POSE>`'s row); in full fine-tuning it is a frozen copy. Create it right
after loading the SFT policy (and calling `add_lora`), before any step: the KL is then exactly 0 at step 0.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

from pose_rft.policy.lora import newest_adapters_off, trains_adapters
from pose_rft.policy.model import PoseLlava

M = TypeVar("M", bound=nn.Module)
OUTSIDE_ADAPTERS = ("fusion", "pose_head", "pose_row", "llava.model.multi_modal_projector")


class ReferencePolicy:
    """A snapshot of `model` at construction."""

    def __init__(self, model: PoseLlava) -> None:
        self.lora = trains_adapters(model)
        self._model: PoseLlava | None = None if self.lora else _frozen(model)
        self._parts = {name: _frozen(model.get_submodule(name)) for name in OUTSIDE_ADAPTERS} if self.lora else {}

    @contextmanager
    def use(self, model: PoseLlava) -> Iterator[PoseLlava]:
        """Context manager that gives the reference policy, without gradients and in eval mode.

        Args:
            model: the live policy (unwrapped from its engine). With LoRA this object itself acts as the reference
                inside the block, so do not use it as the live policy there.
        """
        with torch.no_grad(), ExitStack() as stack:
            if self._model is not None:
                yield _like(self._model, model)
                return
            training = model.training
            stack.callback(model.train, training)
            model.eval()
            stack.enter_context(newest_adapters_off(model))
            for name, part in self._parts.items():
                live = model.get_submodule(name)
                stack.callback(_replace, model, name, live)
                _replace(model, name, _like(part, live))
            yield model


def _frozen(module: M) -> M:
    return copy.deepcopy(module).requires_grad_(False).eval()


def _like(module: M, live: nn.Module) -> M:
    """Moves each tensor to the device and dtype of its counterpart in the live module.

    A bfloat16 engine casts weights but keeps buffers in float32; one dtype for all would shift the mean pose.
    """
    for own, its in zip(_tensors(module), _tensors(live), strict=True):
        own.data = own.data.to(device=its.device, dtype=its.dtype)
    return module


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    return chain(module.parameters(), module.buffers())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
