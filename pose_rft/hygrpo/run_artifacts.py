"""A run's artifacts besides its log: a table of candidates, held-out rewards, and poses of fixed sentences over time.

Each step writes its files atomically into the run's scratch folder; they are merged at the end. A step that is repeated
after a crash rewrites the same file.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from pose_rft.batches.examples import Example
from pose_rft.body.rotations import matrix_to_axis_angle, sixd_to_matrix
from pose_rft.hygrpo.experience import Experience
from pose_rft.inference.answers import Predictions, heldout_rewards
from pose_rft.inference.rewards import Rewards
from pose_rft.io import atomic
from pose_rft.training.loop import StepStats

GROUPS_PER_PAGE = 8
NO_CANDIDATES = pl.DataFrame(schema={"step": pl.Int64, "key": pl.String})
MOMENTS = (0.0, 0.25, 0.5, 1.0)  # fractions of the run at which poses of the fixed sentences are stored


def candidates(step: int, experience: Experience, decode: Callable[[Sequence[int]], str]) -> pl.DataFrame:
    """One row per answer of the first groups, with its rewards and advantages; those of the K poses are lists."""
    e = experience
    groups, per_group = min(GROUPS_PER_PAGE, len(e.prompts.ids)), e.valid.shape[1]
    pose_advantages = e.pose_advantages.values.view(e.poses.shape[:3])
    rows = []
    for i in range(groups):
        example = e.prompts.examples[i]
        for j in range(per_group):
            posed = bool(e.valid[i, j])
            rows.append(
                {
                    "step": step,
                    "key": example.key,
                    "task": example.task,
                    "question": example.question,
                    "candidate": j,
                    "answer": decode(e.answers.answer(i, j)),
                    "format_reward": float(e.answer_rewards.format[i, j]),
                    "text_reward": float(e.answer_rewards.text[i, j]),
                    "text_advantage": float(e.answer_advantages.values[i, j]),
                    "has_pose": posed,
                    "pose_rewards": e.pose_rewards.value[i, j].tolist() if posed else [],
                    "pose_advantages": pose_advantages[i, j].tolist() if posed else [],
                }
            )
    return pl.DataFrame(
        rows, schema_overrides={"pose_rewards": pl.List(pl.Float32), "pose_advantages": pl.List(pl.Float32)}
    )


class Records:
    """Writes a run's artifacts to `scratch` and, at the end, to the results folder.

    Args:
        answer: gives the current policy's greedy answers to examples. heldout: {name: examples}. fixed: captions whose
            poses are stored over time. leader: True on the one rank that writes; every rank must call every method.
    """

    def __init__(
        self,
        scratch: Path,
        answer: Callable[[Sequence[Example]], Predictions],
        rewards: Rewards,
        heldout: Mapping[str, Sequence[Example]],
        fixed: Sequence[Example],
        total_steps: int,
        heldout_every: int,
        table_every: int,
        leader: bool,
    ) -> None:
        self.scratch, self.answer, self.rewards = scratch, answer, rewards
        self.heldout, self.fixed, self.leader = heldout, fixed, leader
        self.heldout_every, self.table_every = heldout_every, table_every
        self.moments = {round(part * total_steps) for part in MOMENTS}

    def before(self, step: int, last: bool = False) -> dict[str, float]:
        """Returns held-out rewards, `heldout/SET/REWARD`, after `step` updates; stores poses of fixed sentences."""
        if self.fixed and (last or step in self.moments):
            self._pose_sentences(step)
        if step % self.heldout_every and not last:
            return {}
        numbers = {}
        for name, examples in self.heldout.items():
            for reward, values in heldout_rewards(self.answer(examples), self.rewards).items():
                present = values[~values.isnan()]
                if len(present):
                    numbers[f"heldout/{name}/{reward}"] = float(present.mean())
        return numbers

    def after(self, step: int, experiences: Sequence[Experience]) -> None:
        """Stores a page of candidates every `table_every` steps."""
        if step % self.table_every == 0 and self.leader:
            page = candidates(step, experiences[0], self.rewards.processor.decode)
            atomic.write_parquet(self.scratch / "candidates" / f"{step:08d}.parquet", page)

    def finish(self, results: Path, step: int) -> dict[str, float]:
        """Writes candidates.parquet and fixed_sentences.json; returns held-out rewards after `step` updates."""
        numbers = self.before(step, last=True)
        if self.leader:
            pages = [pl.read_parquet(page) for page in sorted((self.scratch / "candidates").glob("*.parquet"))]
            # A run without rewards (`rft.reinforced: false`) has no candidates, but DVC needs every output to exist.
            atomic.write_parquet(results / "candidates.parquet", pl.concat(pages) if pages else NO_CANDIDATES)
            moments = sorted((self.scratch / "fixed_sentences").glob("*.json"))
            atomic.write_json(
                results / "fixed_sentences.json", self._sentences([json.loads(p.read_text()) for p in moments])
            )
        return numbers

    def _pose_sentences(self, step: int) -> None:
        prediction = self.answer(self.fixed)
        found = heldout_rewards(prediction, self.rewards)
        content = {
            "step": step,
            "answers": [self.rewards.processor.decode(prediction.answers.answer(i, 0)) for i in range(len(self.fixed))],
            "semantic": _numbers(found["semantic"]),
            "poses": _numbers(_axis_angle(prediction.mean)),
            "std": _numbers(prediction.std.unflatten(-1, (24, 6)).mean(-1)),
        }
        if self.leader:
            atomic.write_json(self.scratch / "fixed_sentences" / f"{step:08d}.json", content)

    def _sentences(self, moments: list[dict[str, Any]]) -> dict[str, Any]:
        """{sentences: [{key, caption, true_pose}], moments: [{step, answers, semantic, poses, std}]}; poses are (24, 3)
        axis-angle radians, root in the camera frame; std is the mean standard deviation of a joint's six numbers."""
        truth = [_axis_angle(e.pose6d[None].flatten(1))[0] for e in self.fixed if e.pose6d is not None]
        sentences = [
            {"key": e.key, "caption": e.caption, "true_pose": _numbers(pose)}
            for e, pose in zip(self.fixed, truth, strict=True)
        ]
        return {"sentences": sentences, "moments": moments}


def _axis_angle(poses: torch.Tensor) -> torch.Tensor:
    return matrix_to_axis_angle(sixd_to_matrix(poses.float().unflatten(-1, (24, 6))))


def _numbers(values: torch.Tensor) -> Any:
    """Nested lists, rounded to five decimals: enough for a plot."""
    return (values.double() * 1e5).round().div(1e5).tolist()


def watched(
    step: Callable[[int], StepStats], before: Callable[[int], Mapping[str, float]]
) -> Callable[[int], StepStats]:
    """Wraps a training step: calls `before` first and adds its numbers to the step's row."""

    def looked_at(number: int) -> StepStats:
        seen = before(number)
        stats = step(number)
        return replace(stats, values={**stats.values, **seen})

    return looked_at
