"""A policy's answers: greedy text, the mean pose of that text's Gaussian, and one pose drawn from it.

Held-out metrics in training, evaluation and `pose-rft predict` (`ask`) all use this module, so numbers in training
curves, numbers in tables and predicted poses come from the same code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pose_rft.batches.examples import Example, ExampleMaker, ExampleParams, Task
from pose_rft.batches.samples import Samples
from pose_rft.body.smpl import BodyModel
from pose_rft.inference.passes import roll_out, score_packed
from pose_rft.inference.rewards import Rewards
from pose_rft.inference.sampling import Completions
from pose_rft.inference.types import Prompts, Scores
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.policy.processor import PoseProcessor
from pose_rft.progress import Progress
from pose_rft.seeds import numpy_rng


@dataclass(frozen=True, eq=False)
class Predictions:
    """N answers, on the CPU.

    answers: (N, 1, R). has_pose: (N,) bool, exactly one pose token. poses: the N distributions, not calibrated.
    mean, std, drawn: (N, 144) raw 6D numbers, root in the camera frame; undefined where has_pose is False. A
    point head has std 0 and drawn = mean.
    """

    examples: tuple[Example, ...]
    answers: Completions
    has_pose: Tensor
    poses: PoseDistribution
    drawn: Tensor

    @property
    def mean(self) -> Tensor:
        """The means of the pose distributions."""
        return self.poses.mean

    @property
    def std(self) -> Tensor:
        """The standard deviations of the pose distributions."""
        return self.poses.std()


@torch.no_grad()
def ask(model: Any, prompts: Prompts, max_new_tokens: int) -> tuple[Completions, Scores]:
    """The greedy answer to each prompt and the policy's scores of it, including the pose distribution."""
    answers = roll_out(model, prompts, None, group_size=1, max_new_tokens=max_new_tokens, temperature=0.0)
    return answers, score_packed(model, prompts, answers, temperature=1.0)


@torch.no_grad()
def predict(
    model: Any,
    prepare: Callable[[Sequence[Example]], Prompts],
    examples: Sequence[Example],
    *,
    end_token_id: int,
    max_new_tokens: int,
    batch: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Predictions:
    """Answers to N examples, `batch` at a time.

    Args:
        generator: for the drawn poses, on the model's device.
    """
    training = model.training
    model.eval()
    lists: list[list[list[int]]] = []
    poses: list[PoseDistribution] = []
    parts: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(examples), batch):
        prompts = prepare(examples[first : first + batch])
        answers, scores = ask(model, prompts, max_new_tokens)
        lists += [[answers.answer(i, 0)] for i in range(len(prompts.ids))]
        drawn = scores.poses.sample(generator)[:, 0]
        poses.append(scores.poses.cpu())
        parts.append((scores.has_pose[:, 0], drawn))
        if progress is not None:
            progress.advance(len(prompts.ids))
    model.train(training)
    has_pose, drawn = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    said = Completions.from_lists(lists, end_token_id)
    return Predictions(tuple(examples), said, has_pose, PoseDistribution.join(poses), drawn)


def heldout_examples(
    task: Task,
    samples: Samples,
    processor: PoseProcessor,
    body: BodyModel,
    most: int | None = None,
    human_only: bool = False,
    measured: bool = False,
) -> list[Example]:
    """One example per suitable sample, or `most` evenly spaced ones; the same for every run and seed.

    Uses a human caption where a sample has one; `human_only` drops the other samples (PoseScript's test protocol).
    No example is mirrored. measured: selects samples with joints measured by the data set, even without an SMPL fit.
    """
    params = ExampleParams(mixture={task: {samples.name: 1.0}}, flip=0.0, human_captions=1.0)
    maker = ExampleMaker(samples, task, processor, body, params, measured)
    rows = maker.rows
    if human_only:
        rows = [row for row in rows if any(caption.kind == "human" for caption in samples.captions[row])]
    every = 1 if most is None else max(1, -(-len(rows) // most))
    return [maker.make(row, numpy_rng(0, "heldout", samples.name, samples.keys[row])) for row in rows[::every]]


def heldout_rewards(prediction: Predictions, rewards: Rewards) -> dict[str, Tensor]:
    """Rewards of greedy answers, each (N,), NaN where a reward does not apply.

    `format`; `text` of VQA answers; `joint` and `semantic` of the mean pose, `joint.sampled` and `semantic.sampled` of
    the drawn pose: 0 where a pose was requested and the answer has none.
    """
    examples, rewards = prediction.examples, rewards.alone()
    said = rewards.answers(examples, prediction.answers)
    valid = prediction.has_pose & torch.tensor([example.pose6d is not None for example in examples])
    found = {"format": said.format[:, 0], "text": said.text[:, 0]}
    for suffix, poses in (("", prediction.mean), (".sampled", prediction.drawn)):
        shown = rewards.poses(examples, poses[:, None, None], valid[:, None])
        for name, values in shown._asdict().items():
            one = values[:, 0, 0]
            found[name + suffix] = torch.where(valid | one.isnan(), one, 0.0)
    return found
