"""Low-rank adapters on the language model, and one trained row for `<POSE>` (peft; LoRA, arXiv 2106.09685).

With a frozen base, a new token's embedding would never be trained; training the whole 32k x 4096 matrix for one row
wastes memory, so the row gets a small parameter of its own. Projectors and pose head are trained too.

Adapters are never merged into the weights: a bfloat16 weight has 8 significant bits, and RL changes it by less than the
last one (200 steps at a learning rate of 1e-6 would keep 3 % of their effect). A policy folder holds the base weights
and, beside them, the adapters in float32. A second training stacks its own adapters, of any rank and on any layers, on
the first one's, so it starts from exactly the policy that the first one produced.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pose_rft.errors import PoseRftError
from pose_rft.io.model_folder import check_safetensors

if TYPE_CHECKING:  # the model runs without pydantic, and saves its adapters through here
    from pose_rft.policy.model import PoseLlava
    from pose_rft.policy.params import LoRAParams

ADAPTERS = "adapters.safetensors"  # in a policy folder, beside the weights


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
    """Trained offsets to `<POSE>`'s rows of the embedding and output matrices.

    Two modules, each with its own `forward`, because only there does ZeRO-3 gather a parameter.
    """

    def __init__(self, token_id: int, like: Tensor) -> None:
        super().__init__()
        self.token_id = token_id
        self.input, self.output = _InputRow(token_id, like), _OutputRow(token_id, like)

    def embed(self, embeds: Tensor, input_ids: Tensor) -> Tensor:
        """(B, T, d) embeddings of (B, T) ids, with the offset added."""
        return self.input(embeds, input_ids)

    def unembed(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """(..., V) logits of (..., d) states, with the offset added in place."""
        return self.output(logits, hidden)


def add_lora(model: "PoseLlava", params: "LoRAParams") -> "PoseLlava":
    """Adds fresh adapters to the language model, in place; the model's outputs do not change.

    Adapters of an earlier training stay as they are; `<POSE>`'s row continues from its current value.
    """
    _inject(model, {"rank": params.rank, "alpha": params.alpha, "targets": list(params.targets)}, params.dropout)
    newest = str(len(model.adapters) - 1)
    for name, parameter in _adapter_parameters(model):
        parameter.requires_grad_(name == newest)
    return model


def add_frozen(model: "PoseLlava", adapters: Sequence[Mapping[str, Any]]) -> None:
    """Adds the adapters of earlier trainings to the language model, in place, without loading their weights."""
    for adapter in adapters:
        _inject(model, dict(adapter), dropout=0.0)
    for _, parameter in _adapter_parameters(model):
        parameter.requires_grad_(False)


def _inject(model: "PoseLlava", adapter: dict[str, Any], dropout: float) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=adapter["rank"], lora_alpha=int(adapter["alpha"]), lora_dropout=dropout, target_modules=adapter["targets"]
    )
    language = model.llava.model.language_model
    inject_adapter_in_model(config, language, str(len(model.adapters)))
    del language.peft_config  # peft's own record, which would cause a warning about a second adapter
    model.adapters.append(adapter)
    if model.pose_row is None:
        weight: Any = model.get_input_embeddings().weight
        model.pose_row = PoseTokenRow(model.config.pose_token_id, weight[0].detach())
    _activate(model, len(model.adapters))


def trains_adapters(model: "PoseLlava") -> bool:
    """Whether the newest adapters are being trained (`add_lora`), not merely present (a loaded policy)."""
    return any(parameter.requires_grad for _, parameter in _adapter_parameters(model))


def save_adapters(model: "PoseLlava", folder: Path) -> None:
    """Saves all adapters and `<POSE>`'s row in float32, under their names in the model."""
    from safetensors.torch import save_file

    state = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in _added(model)}
    save_file(state, folder / ADAPTERS, metadata={"format": "pt"})


@torch.no_grad()
def load_adapters(model: "PoseLlava", folder: Path) -> None:
    """Loads the adapters of a policy folder, as its configuration lists them, into the model, and freezes them.

    Raises:
        PoseRftError: their file is missing or damaged, or does not match the configuration.
    """
    from safetensors.torch import load_file

    path = folder / ADAPTERS
    if not path.is_file():
        raise PoseRftError(f"{path} does not exist, but the policy was trained with LoRA adapters; copy it there too.")
    check_safetensors(path)
    state = load_file(path)
    add_frozen(model, model.config.adapters or [])
    wanted = dict(_added(model))
    wrong = sorted(
        name
        for name in wanted.keys() | state.keys()
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape
    )
    if wrong:
        raise PoseRftError(f"{path} does not fit the policy's configuration: {', '.join(wrong[:12])}.")
    for name, value in wanted.items():
        value.copy_(state[name])


@contextmanager
def without_adapters(model: "PoseLlava") -> Iterator["PoseLlava"]:
    """Within the block, the model is as it was before any `add_lora`."""
    layers, row = list(_adapted(model)), model.pose_row
    for name, layer in layers:
        _replace(model, name, layer.get_base_layer())
    model.pose_row = None
    try:
        yield model
    finally:
        for name, layer in layers:
            _replace(model, name, layer)
        model.pose_row = row


@contextmanager
def newest_adapters_off(model: "PoseLlava") -> Iterator[None]:
    """Within the block, the adapters that the last `add_lora` added are disabled."""
    _activate(model, len(model.adapters) - 1)
    try:
        yield
    finally:
        _activate(model, len(model.adapters))


def trainable_parameters(model: "PoseLlava", mode: Literal["full", "lora"]) -> list[nn.Parameter]:
    """Freezes and unfreezes parameters in place; returns those to train.

    Both modes train the projectors and the pose head and freeze both encoders. `full` adds the language model and its
    embeddings, `lora` the newest adapters and `<POSE>`'s row. Adapters of an earlier training stay frozen, and so does
    a projector that the fusion does not use.

    Raises:
        ValueError: mode is `lora`, but `add_lora` was never called.
    """
    if mode == "lora" and not model.adapters:
        raise ValueError("mode 'lora', but the model has no adapters")
    model.requires_grad_(False)
    trained: list[nn.Module] = [model.fusion, model.pose_head]
    if model.config.fusion != "channel":
        trained.append(model.llava.model.multi_modal_projector)
    if mode == "full":
        trained += [model.llava.model.language_model, model.llava.lm_head]
    else:
        trained.append(model.pose_row)
    for module in trained:
        module.requires_grad_(True)
    newest = str(len(model.adapters) - 1)
    for name, parameter in _adapter_parameters(model):
        parameter.requires_grad_(mode == "lora" and name == newest)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _adapted(model: "PoseLlava") -> Iterator[tuple[str, Any]]:
    if not model.adapters:
        return  # without importing peft
    from peft.tuners.lora import LoraLayer

    for name, module in model.llava.named_modules():
        if isinstance(module, LoraLayer):
            yield f"llava.{name}", module


def _adapter_parameters(model: "PoseLlava") -> Iterator[tuple[str, nn.Parameter]]:
    """Yields (adapter name, parameter) for all adapters."""
    for _, layer in _adapted(model):
        for part in (layer.lora_A, layer.lora_B):
            for name, linear in part.items():
                yield name, linear.weight


def _added(model: "PoseLlava") -> Iterator[tuple[str, nn.Parameter]]:
    """Yields everything that `add_lora` added, with its name in the model."""
    for name, parameter in model.named_parameters():
        if "lora_" in name or name.startswith("pose_row."):
            yield name, parameter


def _activate(model: "PoseLlava", count: int) -> None:
    """Enables only the first `count` adapters. (peft's own switch would also unfreeze them all.)"""
    for _, layer in _adapted(model):
        layer._active_adapter = [str(i) for i in range(count)]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
