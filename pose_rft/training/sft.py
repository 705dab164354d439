"""Supervised pretraining: LLaVA becomes a pose MLLM (paper section 4.1, table 4; ChatPose for the losses).

Each step draws `batch` examples from the mixture; answers are trained with cross-entropy and poses with `losses.py`.
The two variants of Table 3 differ in the pose head: `point` ("Baseline") and `gaussian` ("Baseline + Dist.").
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from pydantic import model_validator
from torch import Tensor

from pose_rft.batches.collate import IGNORED, Batch, Collator
from pose_rft.batches.examples import Example, ExampleParams, ExampleStream, HeldoutParams
from pose_rft.batches.feature_cache import ImageTokenSource
from pose_rft.body.smpl import BodyModel
from pose_rft.errors import PoseRftError
from pose_rft.params import Count, Section
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import LoRAParams
from pose_rft.training import loop
from pose_rft.training.engine import Engine, EngineParams
from pose_rft.training.loop import StepStats
from pose_rft.training.losses import LossParams, answer_losses, pose_losses


class SFTParams(Section):
    """`sft`: batch counts examples over all ranks and accumulation steps; without `lora` the language model is trained.

    cache_tokens: cache the frozen encoders' tokens of every crop in scratch (small data), else encode at every step.
    """

    steps: Count
    batch: Count
    save_every: Count
    cache_tokens: bool = True
    engine: EngineParams
    examples: ExampleParams
    loss: LossParams
    heldout: HeldoutParams
    lora: LoRAParams | None = None

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> "SFTParams":
        if self.batch % self.engine.accumulation:
            raise ValueError(f"batch {self.batch} must be a multiple of engine.accumulation {self.engine.accumulation}")
        return self


def train(
    engine: Engine,
    stream: ExampleStream,
    collator: Collator,
    image_tokens: ImageTokenSource,
    body: BodyModel,
    params: SFTParams,
    scratch: Path,
    label: str,
    seed: int,
) -> pl.DataFrame:
    """Trains `engine.module` (a PoseLlava with its trainable parameters already selected) and returns the log.

    Raises:
        PoseRftError: the batch cannot be split over the ranks, or a loss is not finite.
    """
    one_step = stepper(engine, stream, collator, image_tokens, body, params.batch, params.loss)
    return loop.run(engine, one_step, params.steps, scratch, params.save_every, label, seed)


def stepper(
    engine: Engine,
    stream: ExampleStream,
    collator: Collator,
    image_tokens: ImageTokenSource,
    body: BodyModel,
    batch_size: int,
    weights: LossParams,
) -> Callable[[int], StepStats]:
    """Returns a function of the step number that does one supervised update with `batch_size` examples over all ranks.

    Raises:
        PoseRftError: the batch cannot be split over the ranks.
    """
    pieces = engine.world_size * engine.accumulation
    if batch_size % pieces:
        raise PoseRftError(
            f"The batch is {batch_size}, expected a multiple of {pieces} "
            f"({engine.world_size} processes x accumulation {engine.accumulation})."
        )
    size = batch_size // engine.world_size

    def batches(step: int) -> Iterator[tuple[Batch, float]]:
        """Yields this rank's micro-batches, with the mean number of poses per micro-batch in the step."""
        drawn = [stream.draw(position) for position in range(step * batch_size, (step + 1) * batch_size)]
        poses = sum(example.pose6d is not None for example in drawn) / pieces
        drawn = drawn[engine.rank * size : (engine.rank + 1) * size]
        for part in collator.by_length(drawn, engine.accumulation):
            yield collator(part).to(engine.device), poses

    def one_step(step: int) -> StepStats:
        total, parts = 0.0, []
        for batch, poses in batches(step):
            tokens = image_tokens(batch.image_refs).to(engine.device)
            loss, values = engine.forward(batch_loss, batch, tokens, weights, body, poses)
            engine.backward(loss, batch.keys)
            total += float(loss.detach()) / engine.accumulation
            parts.append(values)
        norm = engine.step(step)
        return StepStats(engine.mean(total), batch_size, {"gradient_norm": norm} | _means(parts))

    return one_step


def supervision(
    collator: Collator, image_tokens: ImageTokenSource, body: BodyModel, weights: LossParams, device: torch.device
) -> Callable[[PoseLlava, Sequence[Example], float], Tensor]:
    """Returns the supervised loss as a function, for a training that adds it; its float is `batch_loss`'s `poses`."""

    def loss(model: PoseLlava, examples: Sequence[Example], poses: float) -> Tensor:
        batch = collator(examples).to(device)
        return batch_loss(model, batch, image_tokens(batch.image_refs).to(device), weights, body, poses)[0]

    return loss


def batch_loss(
    model: PoseLlava, batch: Batch, tokens: ImageTokens, params: LossParams, body: BodyModel, poses: float
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts by task for the log (`answer/vqa`, `rotation/image_pose`, …).

    tokens: of the batch's images in row order. poses: divisor of the summed pose losses, chosen so that the step's loss
    is the mean over all its poses, however they are split into micro-batches.
    """
    output = model(batch.input_ids, batch.attention_mask, image_tokens=tokens, labels=batch.labels)
    scored = batch.labels[:, 1:] != IGNORED
    rows = scored.nonzero()[:, 0]
    answers = answer_losses(output.logits, batch.labels[:, 1:][scored], rows, len(batch.labels))
    loss = params.answer * answers.mean()
    tasks = [example.task for example in batch.examples]
    values = _by_task("answer", answers, tasks)
    hidden = output.hidden_states
    # Without poses or images the same operations run on empty tensors: every parameter gets a gradient on every rank,
    # in the same order, as ZeRO requires.
    start = output.pose_start[batch.pose_rows]
    predicted = model.pose_distribution(hidden[batch.pose_rows, batch.pose_positions], start)
    parts = pose_losses(predicted, batch.pose6d, batch.pose_mask, batch.joints, params, body)
    loss = loss + parts.total(params).sum() / (poses or 1.0)
    posed = [tasks[row] for row in batch.pose_rows.tolist()]
    for name, part in parts._asdict().items():
        if part is not None:
            values |= _by_task(name, part, posed)
    if predicted.log_std is not None and posed:
        values["sigma"] = float(predicted.std().mean().detach())
    return loss, values


def _by_task(name: str, values: Tensor, tasks: Sequence[str]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for task, value in zip(tasks, values.detach().tolist(), strict=True):
        groups.setdefault(f"{name}/{task}", []).append(value)
    return {key: sum(group) / len(group) for key, group in sorted(groups.items())}


def _means(parts: list[dict[str, float]]) -> dict[str, Any]:
    names = sorted({name for part in parts for name in part})
    found = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
