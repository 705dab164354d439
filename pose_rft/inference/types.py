"""The policy's inputs and outputs (prompts, scores, rewards) and the signatures of rollout and scoring.

Callers receive both as functions. `Sampler` samples the G answers of each prompt; `Score` passes all of them through a
policy once and returns the token log-probabilities and the pose distributions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.inference.sampling import Completions
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.pose_head import PoseDistribution


@dataclass(frozen=True, eq=False)
class Prompts:
    """B questions: token ids, and the frozen encoders' tokens of those with an image, in row order."""

    examples: tuple[Example, ...]
    ids: tuple[tuple[int, ...], ...]
    images: ImageTokens | None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> "Prompts":
        """The prompts at `rows`, in that order."""
        pictured = [row for row, example in enumerate(self.examples) if example.image is not None]
        wanted = [pictured.index(row) for row in rows if self.examples[row].image is not None]
        images = self.images.select(wanted) if self.images is not None and wanted else None
        return Prompts(tuple(self.examples[row] for row in rows), tuple(self.ids[row] for row in rows), images)

    @property
    def keys(self) -> list[str]:
        """The keys of the examples, in order."""
        return [example.key for example in self.examples]


class Scores(NamedTuple):
    """One policy's scores of all answers.

    token_log_prob: (B, G, R) nats. entropy: (B, G, R) nats, of the token's distribution, without gradient.
    poses: B·G distributions, row by row; has_pose: (B, G) bool, the answer has exactly one pose token. An answer
    without one gets a meaningless distribution, so that the pose head takes part in every backward pass.
    """

    token_log_prob: Tensor
    entropy: Tensor
    poses: PoseDistribution
    has_pose: Tensor


class Sampler(Protocol):
    """Samples answers of the current model without gradient or dropout, from the random numbers uniforms (B, G, R)."""

    def __call__(self, model: Any, prompts: Prompts, uniforms: Tensor | None) -> Completions: ...


class Score(Protocol):
    """Scores given answers; the caller's grad mode applies."""

    def __call__(self, model: Any, prompts: Prompts, answers: Completions) -> Scores: ...


class AnswerRewards(NamedTuple):
    """(B, G) each; text is NaN where the prompt has no text reward; the advantage is computed from total."""

    format: Tensor
    text: Tensor
    total: Tensor


class PoseRewards(NamedTuple):
    """(B, G, K) each, NaN where it does not apply: a pose has either joint or semantic, and that is its `value`."""

    joint: Tensor
    semantic: Tensor

    @property
    def value(self) -> Tensor:
        """Each pose's reward: joint where it has one, else semantic."""
        return torch.where(self.joint.isnan(), self.semantic, self.joint)
