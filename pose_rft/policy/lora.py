"""Low-rank adapters on the language model, and one trained row for `<POSE>` (peft; LoRA, arXiv 2106.09685).

With a frozen base the embedding of a new token would never train; training the whole 32k x 4096 matrix for one row
wastes memory, so the row gets a small parameter of its own. Adapters and row exist only between `add_lora` and
`merge_lora`: model folders always hold whole weights. Trained beside the adapters: projectors and pose head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pose_rft.policy.model import PoseLlava

if TYPE_CHECKING:  # the model runs without pydantic
    from pose_rft.policy.params import LoRAParams


class _InputRow(nn.Module):
    def __init__(self, token_id: int, like: Tensor) -> None:
        super().__init__()
        self.token_id = token_id
        self.value = nn.Parameter(torch.zeros_like(like))

    def forward(self, embeds: Tensor, input_ids: Tensor) -> Tensor:
        return embeds + (input_ids == self.token_id)[..., None] * self.value.to(embeds.dtype)


class _OutputRow(_InputRow):
    def forward(self, logits: Tensor, hidden: Tensor) -> Tensor:
        logits[..., self.token_id] += (hidden * self.value.to(hidden.dtype)).sum(-1)
        return logits


class PoseTokenRow(nn.Module):
    """What is added to `<POSE>`'s rows of the embedding and output matrices.

    Two modules, each with one `forward`: only there does ZeRO-3 put a parameter together.
    """

    def __init__(self, token_id: int, like: Tensor) -> None:
        super().__init__()
        self.token_id = token_id
        self.input, self.output = _InputRow(token_id, like), _OutputRow(token_id, like)

    def embed(self, embeds: Tensor, input_ids: Tensor) -> Tensor:
        """(B, T, d) embeddings of (B, T) ids, corrected."""
        return self.input(embeds, input_ids)

    def unembed(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """(..., V) logits of (..., d) states, corrected in place."""
        return self.output(logits, hidden)


def add_lora(model: PoseLlava, params: "LoRAParams") -> PoseLlava:
    """Puts fresh adapters into the language model, in place; what the model says does not change.

    Raises:
        ValueError: the model has adapters already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if model.pose_row is not None:
        raise ValueError("the model has LoRA adapters already")
    config = LoraConfig(
        r=params.rank, lora_alpha=int(params.alpha), lora_dropout=params.dropout, target_modules=list(params.targets)
    )
    inject_adapter_in_model(config, model.llava.model.language_model)
    weight: Any = model.get_input_embeddings().weight
    model.pose_row = PoseTokenRow(model.config.pose_token_id, weight[0].detach())
    return model


def _adapted(model: PoseLlava) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.llava.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


@torch.no_grad()
def merge_lora(model: PoseLlava) -> PoseLlava:
    """Folds adapters and `<POSE>`'s row into the weights, in place; what the model says does not change."""
    for name, layer in list(_adapted(model)):
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.llava.get_submodule(parent), child, layer.get_base_layer())
    row = model.pose_row
    if row is not None:
        embeddings: Any = model.get_input_embeddings()
        unembeddings: Any = model.get_output_embeddings()
        embeddings.weight[row.token_id] += row.input.value
        unembeddings.weight[row.token_id] += row.output.value
        model.pose_row = None
    return model


@contextmanager
def adapters_off(model: PoseLlava) -> Iterator[None]:
    """The language model without its adapters, for the duration of the block."""
    layers = [layer for _, layer in _adapted(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def trainable_parameters(model: PoseLlava, mode: Literal["full", "lora"]) -> list[nn.Parameter]:
    """Freezes and unfreezes in place; returns what is trained.

    Both modes train the projectors and the pose head and freeze both encoders. `full` adds the language model and its
    embeddings, `lora` the adapters and `<POSE>`'s row. A projector that the fusion does not use stays frozen.

    Raises:
        ValueError: `lora` without add_lora, or `full` with it.
    """
    if (mode == "lora") != (model.pose_row is not None):
        raise ValueError(f"mode {mode!r}, but the model has {'no' if mode == 'lora' else 'LoRA'} adapters")
    model.requires_grad_(False)
    trained: list[nn.Module] = [model.fusion, model.pose_head]
    if model.config.fusion != "channel":
        trained.append(model.llava.model.multi_modal_projector)
    if mode == "full":
        trained += [model.llava.model.language_model, model.llava.lm_head]
    for module in trained:
        module.requires_grad_(True)
    if mode == "lora":
        for name, parameter in model.named_parameters():
            if "lora_" in name or name.startswith("pose_row."):
                parameter.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
