"""The user's settings of a training's optimiser, precision and memory, and their translation for DeepSpeed.

AdamW with betas (0.9, 0.95) and a cosine schedule follows the paper's table 4; memory is managed by DeepSpeed's ZeRO
(arXiv 1910.02054), ZeRO-Offload (2101.06840) and ZeRO-Infinity (2104.07857).
"""

import math
from typing import Any, Literal, Self

from pydantic import model_validator

from pose_rft.params import Count, Fraction, NonNegative, Positive, Section

Place = Literal["none", "cpu", "nvme"]


class OffloadParams(Section):
    """Where ZeRO keeps its state: `none` (on the GPU), `cpu`, or `nvme` (files under `nvme_path`)."""

    optimizer: Place = "none"  # AdamW's moments and the float32 weights; needs ZeRO 1-3, nvme needs 3
    parameters: Place = "none"  # the weights themselves; needs ZeRO 3
    nvme_path: str | None = None

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if "nvme" in (self.optimizer, self.parameters) and self.nvme_path is None:
            raise ValueError("offload to nvme needs offload.nvme_path, a folder on that disk")
        return self

    def as_deepspeed(self) -> dict[str, Any]:
        """The offload entries of DeepSpeed's `zero_optimization`."""
        found: dict[str, Any] = {}
        for name, place in (("offload_optimizer", self.optimizer), ("offload_param", self.parameters)):
            if place != "none":
                found[name] = {"device": place} | ({"nvme_path": self.nvme_path} if place == "nvme" else {})
        return found


class EngineParams(Section):
    """`engine`: one optimiser for SFT, RFT and the encoders."""

    lr: Positive
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    warmup: Fraction = 0.0  # fraction of all steps with a linear warm-up
    final_lr: Fraction = 0.0  # where the cosine ends, as a fraction of lr
    grad_clip: NonNegative = 1.0  # largest gradient norm; 0 disables clipping
    accumulation: Count = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    bf16: bool = False
    # Keeps only the input of each layer of the language model; the backward pass recomputes the rest.
    checkpoint_activations: bool = False
    offload: OffloadParams = OffloadParams()

    @property
    def stage(self) -> int:
        """The effective ZeRO stage; bfloat16 needs at least 2 for float32 gradients and reshardable checkpoints."""
        return max(2, self.zero_stage) if self.bf16 else self.zero_stage

    @model_validator(mode="after")
    def _offload_fits_the_stage(self) -> Self:
        needed = {"none": 0, "cpu": 1, "nvme": 3}[self.offload.optimizer]
        if self.zero_stage < needed:
            raise ValueError(
                f"offload.optimizer {self.offload.optimizer} needs zero_stage {needed} or higher, not {self.zero_stage}"
            )
        if self.offload.parameters != "none" and self.zero_stage != 3:
            raise ValueError(
                f"offload.parameters {self.offload.parameters} needs zero_stage 3, since lower stages keep all weights "
                f"on every GPU, not {self.zero_stage}"
            )
        return self


def learning_rate(params: EngineParams, step: int, total_steps: int) -> float:
    """Linear warm-up, then half a cosine from lr to final_lr * lr; `step` counts from 0."""
    warmup_steps = round(params.warmup * total_steps)
    if step < warmup_steps:
        return params.lr * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return params.lr * (params.final_lr + (1.0 - params.final_lr) * cosine)


def deepspeed_config(params: EngineParams) -> dict[str, Any]:
    """The configuration for `deepspeed.initialize`.

    AdamW is torch's own even if the optimiser is offloaded, so that nothing has to be compiled.
    """
    optimizer = {
        "lr": params.lr,
        "betas": list(params.betas),
        "weight_decay": params.weight_decay,
        "torch_adam": True,
        "fused": True,  # one kernel for all tensors, in torch itself, on CPUs too
    }
    config = {
        "train_micro_batch_size_per_gpu": 1,  # only used for DeepSpeed's own throughput display, which is off
        "gradient_accumulation_steps": params.accumulation,
        "gradient_clipping": params.grad_clip,  # DeepSpeed clips at 1.0 when this is absent
        "zero_optimization": {"stage": params.stage} | params.offload.as_deepspeed(),
        "bf16": {"enabled": params.bf16},
        "optimizer": {"type": "AdamW", "params": optimizer},
        "steps_per_print": 10**9,
    }
    if params.bf16:
        # DeepSpeed's default is the weights' own precision: with 8 significant bits, a sum over many micro-batches or
        # ranks loses every term 256 times smaller than the running total.
        config |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return config
