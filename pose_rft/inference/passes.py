"""The policy as the trainer sees it: examples to prompts, prompts to answers, answers to scores.

Rollout and scoring have the signatures that the trainer and the evaluation expect, so that either can be replaced: by
`score_separate`, the plain path, or by a policy that is not a language model (tests).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.batches.feature_cache import ImageTokenSource
from pose_rft.inference import packing
from pose_rft.inference.sampling import Completions, generate
from pose_rft.inference.types import Prompts, Scores
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.processor import PoseProcessor


class Preparer:
    """Examples → Prompts on a device."""

    def __init__(self, processor: PoseProcessor, image_tokens: ImageTokenSource, device: torch.device) -> None:
        self.processor, self.image_tokens, self.device = processor, image_tokens, device

    def __call__(self, examples: Sequence[Example]) -> Prompts:
        """
        Raises:
            PoseRftError: a picture cannot be decoded.
        """
        ids = tuple(tuple(self.processor.prompt_ids(e.question, e.image is not None)) for e in examples)
        refs = [example.image for example in examples if example.image is not None]
        images = self.image_tokens(refs).to(self.device)
        return Prompts(tuple(examples), ids, images if refs else None)


def roll_out(
    model: Any,
    prompts: Prompts,
    uniforms: Tensor | None,
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
) -> Completions:
    """G answers to each prompt; temperature 0 is greedy and takes no `uniforms` (B, G, R)."""
    images = _images(model, prompts)
    return generate(model, prompts.ids, images, group_size, max_new_tokens, temperature, uniforms)


def score_packed(model: Any, prompts: Prompts, answers: Completions, *, temperature: float) -> Scores:
    """Scores all answers of a group in one row after their prompt."""
    return _score(packing.pack, model, prompts, answers, temperature)


def score_separate(model: Any, prompts: Prompts, answers: Completions, *, temperature: float) -> Scores:
    """Scores each answer in its own row, with its own copy of the prompt."""
    return _score(packing.separate_rows, model, prompts, answers, temperature)


def _score(
    lay_out: Callable[..., packing.Rows], model: Any, prompts: Prompts, answers: Completions, temperature: float
) -> Scores:
    rows = lay_out(prompts.ids, answers, model.config).to(model.device)
    found = packing.score(model, rows, _images(model, prompts), temperature)
    poses = model.pose_distribution(found.hidden.flatten(0, 1), found.start.flatten(0, 1))
    return Scores(found.log_probs, found.entropy, poses, found.has_pose)


def _images(model: Any, prompts: Prompts) -> ImageTokens:
    """Empty tokens without an image: the projectors still run, as ZeRO needs every parameter in each rank's pass."""
    return model.no_tokens(model.device) if prompts.images is None else prompts.images


def sampling(group_size: int, max_new_tokens: int, temperature: float) -> Callable[..., Completions]:
    """`roll_out` with these settings bound, as the trainer calls it."""
    return partial(roll_out, group_size=group_size, max_new_tokens=max_new_tokens, temperature=temperature)


def scoring(temperature: float) -> Callable[..., Scores]:
    """`score_packed` with the sampling temperature bound, as the trainer calls it."""
    return partial(score_packed, temperature=temperature)
