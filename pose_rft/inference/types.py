"""What goes into the policy and comes out of it: prompts, completions' scores, rewards; and the two calls between them.

Rollout and scoring are two functions that their user is given. `Sampler` samples the G answers of each prompt; `Score`
passes all of them through a policy once and returns the token log-probabilities and the pose distributions.
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
    """B questions: ids of each, and the frozen encoders' tokens of those that have a picture, in row order."""

    examples: tuple[Example, ...]
    ids: tuple[tuple[int, ...], ...]
    images: ImageTokens | None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> "Prompts":
        """Some of them, in the order of `rows`."""
        pictured = [row for row, example in enumerate(self.examples) if example.image is not None]
        wanted = [pictured.index(row) for row in rows if self.examples[row].image is not None]
        images = self.images.select(wanted) if self.images is not None and wanted else None
        return Prompts(tuple(self.examples[row] for row in rows), tuple(self.ids[row] for row in rows), images)

    @property
    def keys(self) -> list[str]:
        """The keys of the examples, in order."""
        return [example.key for example in self.examples]


class Scores(NamedTuple):
    """One policy's view of all answers.

    token_log_prob: (B, G, R) nats. entropy: (B, G, R) nats, of the token's distribution, without gradient.
    poses: B·G distributions, row by row; has_pose: (B, G) bool, the answer holds exactly one pose token. An answer
    without one has a distribution too, of no meaning, so that the pose head takes part in every backward pass.
    """

    token_log_prob: Tensor
    entropy: Tensor
    poses: PoseDistribution
    has_pose: Tensor


class Sampler(Protocol):
    """Answers of the model as it is, without gradient and without dropout; uniforms (B, G, R): its dice."""

    def __call__(self, model: Any, prompts: Prompts, uniforms: Tensor | None) -> Completions: ...


class Score(Protocol):
    """Scores of given answers; gradients as the caller's mode says."""

    def __call__(self, model: Any, prompts: Prompts, answers: Completions) -> Scores: ...


class AnswerRewards(NamedTuple):
    """(B, G) each; text is NaN where the prompt has no text reward; total is what the advantage sees."""

    format: Tensor
    text: Tensor
    total: Tensor


class PoseRewards(NamedTuple):
    """(B, G, K) each, NaN where it does not apply: of joint and semantic a pose has one, which is `value`."""

    joint: Tensor
    semantic: Tensor

    @property
    def value(self) -> Tensor:
        """Each pose's reward: that of its joints where it has one, else that of its meaning."""
        return torch.where(self.joint.isnan(), self.semantic, self.joint)
