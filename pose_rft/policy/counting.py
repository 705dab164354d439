"""The cost of a policy: parameters, floating-point operations, memory; the same counts serve a step's MFU and `plan`.

Parameters are counted on the model itself, built on torch's meta device. Operations are those of the matrix products
that the mathematics requires, two per multiply-add; recomputation, copies and padding do not count. As in PaLM's "model
FLOPs utilization" (arXiv 2204.02311, appendix B) and torch's FlopCounterMode, attention is not halved for the causal
mask, and norms, softmax and activations are left out. Frozen weights have no gradient of their own, so a backward pass
through them costs one forward pass, not two.

Memory follows ZeRO's accounting (arXiv 1910.02054, section 3): bfloat16 weights of 2 bytes, gradients accumulated in
float32, and for each trained parameter 12 bytes of optimiser state (float32 weight, two moments of AdamW).
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pose_rft.policy.config import PoseLlavaConfig
from pose_rft.policy.lora import add_frozen, add_lora, trainable_parameters
from pose_rft.policy.model import PoseLlava

if TYPE_CHECKING:  # the model runs without pydantic
    from pose_rft.policy.params import LoRAParams

OPTIMISER_BYTES = {True: 12, False: 8}
"""Per trained parameter, in bfloat16 training and in float32 (whose weights need no second copy)."""


class Count(NamedTuple):
    """Number of parameters of a part, and how many of them are trained."""

    total: int
    trained: int


class Passes(NamedTuple):
    """FLOPs of a forward pass and of its backward pass."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Forward and backward passes together."""
        return self.forward + self.backward

    def __add__(self, other: tuple[Any, ...]) -> "Passes":
        return Passes(self.forward + other[0], self.backward + other[1])

    def times(self, n: float) -> "Passes":
        """The same passes `n` times."""
        return Passes(n * self.forward, n * self.backward)


@dataclass(frozen=True)
class Group:
    """Token counts of a prompt (including its image's, if any) and of its answers (including EOS)."""

    prompt: int
    answers: tuple[int, ...]
    image: bool

    @property
    def unique(self) -> int:
        """Tokens with the prompt counted once, as processed here."""
        return self.prompt + sum(self.answers)

    @property
    def logical(self) -> int:
        """Tokens with the prompt counted for every answer, as in a trainer that repeats prompts."""
        return self.prompt * len(self.answers) + sum(self.answers)


class StepFlops(NamedTuple):
    """FLOPs of an RFT step by phase: frozen encoders, rollout, reference, policy with its backward passes."""

    encode: float
    rollout: float
    reference: float
    update: float

    @property
    def total(self) -> float:
        """FLOPs of the whole step."""
        return sum(self)


def skeleton(config: PoseLlavaConfig, lora: "LoRAParams | None" = None) -> PoseLlava:
    """The policy on the meta device, its trained parameters marked; a 7B one takes a second and no memory.

    lora: the adapters being trained, on top of those that the configuration lists.
    """
    with torch.device("meta"):
        model = PoseLlava(deepcopy(config))
        add_frozen(model, config.adapters or [])
        if lora is not None:
            add_lora(model, lora)
    trainable_parameters(model, "full" if lora is None else "lora")
    return model


PARTS = {
    "CLIP tower": ("llava.model.vision_tower.",),
    "pose encoder": ("pose_encoder.",),
    "projectors": ("llava.model.multi_modal_projector.", "fusion."),
    "pose head": ("pose_head.",),
    "language model": ("llava.model.language_model.", "llava.lm_head."),
}


def parameters(model: PoseLlava) -> dict[str, Count]:
    """Counts parameters by part, with `adapters` (and `<POSE>`'s row) separate; omits parts that the model lacks."""
    numbers = dict.fromkeys([*PARTS, "adapters"], Count(0, 0))
    for name, parameter in model.named_parameters():
        adapter = "lora_" in name or name.startswith("pose_row.")
        part = "adapters" if adapter else next(p for p, starts in PARTS.items() if name.startswith(starts))
        size, (total, trained) = parameter.numel(), numbers[part]
        numbers[part] = Count(total + size, trained + size * parameter.requires_grad)
    return {part: count for part, count in numbers.items() if count.total}


class PolicyCosts:
    """The costs of one policy, from its configuration alone."""

    def __init__(self, config: PoseLlavaConfig, lora: "LoRAParams | None" = None) -> None:
        self.config, self.lora = config, lora
        self.model = skeleton(config, lora)
        self.parameters = parameters(self.model)
        text: Any = config.get_text_config()
        language = self.model.llava.model.language_model
        self._adapters = _linears(language, adapters=True)
        self._matrices = _linears(language, adapters=False)
        head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self._pair = 4.0 * text.num_hidden_layers * text.num_attention_heads * head_width
        self._head = _linears(self.model.llava.lm_head, adapters=False)
        self._pose_head = _linears(self.model.pose_head, adapters=False)

    @property
    def total(self) -> Count:
        """All parameters."""
        return Count(*(sum(numbers) for numbers in zip(*self.parameters.values(), strict=True)))

    # --- operations

    def language(self, tokens: int, pairs: float, states: int, adapters: bool = True) -> Passes:
        """FLOPs of the language model and its output matrix.

        Args:
            tokens: number of tokens read. pairs: number of (query, key) pairs in each attention layer.
            states: number of states that predict a token. adapters: False for the reference, which disables them.
        """
        none = Passes(0.0, 0.0)
        per_token = self._matrices + (self._adapters if adapters else none)
        return per_token.times(tokens) + Passes(self._pair, 2 * self._pair).times(pairs) + self._head.times(states)

    @cached_property
    def encoding(self) -> float:
        """FLOPs of both frozen encoders for one image, counted by torch on the meta device."""
        vision = self.config.llava.vision_config.image_size
        pose = self.model.pose_encoder.image_size if self.model.pose_encoder is not None else vision
        pictures = (torch.empty(1, 3, side, side, device="meta") for side in (vision, pose))
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.model.encode_images(*pictures)
        return float(counter.get_total_flops())

    @cached_property
    def projection(self) -> Passes:
        """FLOPs of the projectors for one image; their inputs come from frozen encoders and need no gradient."""
        fusion, found = self.model.fusion, Passes(0.0, 0.0)
        clip = fusion.clip_grid[0] * fusion.clip_grid[1]
        pose = fusion.pose_grid[0] * fusion.pose_grid[1] if fusion.pose_grid is not None else 0
        used = [] if fusion.kind == "channel" else [(self.model.llava.model.multi_modal_projector, clip)]
        if fusion.kind != "clip_only":
            used.append((fusion.projector, clip if fusion.kind == "channel" else pose))
        for projector, tokens in used:
            first = 2.0 * projector.linear_1.weight.numel()
            found += (_linears(projector, adapters=False) + (0.0, -first)).times(tokens)  # noqa: RUF005
        return found

    def scoring(self, group: Group, adapters: bool = True) -> Passes:
        """FLOPs of one packed pass: log-probabilities of all answers, and the pose distributions."""
        read = [length - 1 for length in group.answers]  # nothing follows an answer's last token
        pairs = group.prompt**2 + sum(r * (group.prompt + r) for r in read)
        found = self.language(group.prompt + sum(read), pairs, 1 + sum(read), adapters)
        found += self._pose_head.times(len(group.answers))
        return found + self.projection if group.image else found

    def rollout(self, group: Group) -> float:
        """FLOPs of sampling the answers with one shared prompt cache."""
        read = [length - 1 for length in group.answers]
        pairs = group.prompt**2 + sum(r * group.prompt + r * (r + 1) / 2 for r in read)
        found = self.language(group.prompt + sum(read), pairs, 1 + sum(read)).forward
        return found + (self.projection.forward if group.image else 0.0)

    def rft_step(self, groups: Iterable[Group], updates: int = 1, encode: bool = True) -> StepFlops:
        """FLOPs of a step on `groups`; encode: False if the encoders' tokens are cached."""
        parts = [StepFlops(0.0, 0.0, 0.0, 0.0)]
        for group in groups:
            seen = self.encoding if group.image and encode else 0.0
            reference = self.scoring(group, adapters=False).forward
            parts.append(StepFlops(seen, self.rollout(group), reference, updates * self.scoring(group).total))
        return StepFlops(*(sum(column) for column in zip(*parts, strict=True)))

    def sft_example(self, example: Group, encode: bool = True) -> float:
        """FLOPs of one dialogue, all of whose tokens are read, forward and backward."""
        tokens = example.unique
        found = self.language(tokens, tokens**2, sum(example.answers)) + self._pose_head
        if example.image:
            found += self.projection
        return found.total + (self.encoding if example.image and encode else 0.0)

    # --- memory

    def states(self, stage: int, world: int, bf16: bool) -> dict[str, float]:
        """Bytes on each of `world` GPUs at ZeRO stage 0 to 3, without activations.

        `reference` is the cost of the frozen SFT policy: a second model in full fine-tuning; with adapters, only the
        few parts trained besides them (never sharded).
        """
        size = 2 if bf16 else 4
        total, trained = self.total
        outside = sum(self.parameters[part].total for part in ("projectors", "pose head") if part in self.parameters)
        return {
            "weights": size * total / (world if stage >= 3 else 1),
            "gradients": 4 * trained / (world if stage >= 2 else 1),
            "optimiser": OPTIMISER_BYTES[bf16] * trained / (world if stage >= 1 else 1),
            "reference": float(size * (total if self.lora is None else outside)),
        }

    def activations(self, rows: int, prompt: int, answers: int, length: int, bf16: bool, checkpointing: bool) -> float:
        """Activation bytes for the backward pass of `rows` packed rows: the language model with its logits.

        Measured on the meta device with one layer and with two: every layer adds what the second one adds. With
        activation checkpointing a layer keeps only its input, and layers are recomputed one at a time.
        """
        text: Any = self.config.get_text_config()
        one, two = (self._kept(layers, rows, prompt, answers, length, bf16) for layers in (1, 2))
        layer, rest = two - one, 2 * one - two
        if not checkpointing:
            return rest + text.num_hidden_layers * layer
        tokens = rows * (prompt + answers * (length - 1))
        return rest + layer + text.num_hidden_layers * tokens * text.hidden_size * (2.0 if bf16 else 4.0)

    def _kept(self, layers: int, rows: int, prompt: int, answers: int, length: int, bf16: bool) -> float:
        config = deepcopy(self.config)
        config.get_text_config().num_hidden_layers = layers
        config.pose_encoder, config.fusion = None, "clip_only"
        config.llava.vision_config.num_hidden_layers = 2
        model = skeleton(config, self.lora).train()
        nn.Module.to(model, torch.bfloat16 if bf16 else torch.float32)
        columns = prompt + answers * (length - 1)
        storages: dict[int, Any] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage
            return tensor

        weights = [parameter.untyped_storage() for parameter in model.parameters()]
        with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            width = config.get_text_config().hidden_size
            embeds = torch.empty(rows, columns, width, dtype=model.dtype).requires_grad_(True)
            hidden = model.llava.model.language_model(
                inputs_embeds=embeds,
                attention_mask=torch.ones(rows, 1, 1, prompt, dtype=torch.bool),
                position_ids=torch.zeros(rows, columns, dtype=torch.long),
                group=(prompt, answers),
                use_cache=False,
            ).last_hidden_state
            logits = model.llava.lm_head(hidden[:, columns - answers * (length - 1) - 1 :]).float()
            torch.logsumexp(logits, -1).sum()
        for storage in weights:
            storages.pop(storage._cdata, None)
        return float(sum(storage.nbytes() for storage in storages.values()))


def _linears(module: nn.Module, adapters: bool) -> Passes:
    """FLOPs of one token through the Linear layers of a module: those of the adapters, or all others."""
    found = Passes(0.0, 0.0)
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and ("lora_" in name) == adapters:
            product = 2.0 * layer.weight.numel()
            found += (product, product * (2 if layer.weight.requires_grad else 1))
    return found
