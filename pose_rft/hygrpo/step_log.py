"""The numbers of one step: TRL's metric names for the text branch, a `pose/` mirror for the pose branch, phase times.

Names as in TRL's GRPO documentation ("Logged metrics"), so that curves of other GRPO runs lie beside ours: `reward`,
`reward_std`, `rewards/<name>/mean`, `frac_reward_zero_std`, `completions/...`, `entropy`, `kl`, `clip_ratio/...`.
Times are seconds of this rank.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from pose_rft.hygrpo.experience import Experience, Scores

PHASES = ("rollout", "score", "reward", "update")


class StepLog:
    """Means over micro-batches, updates and ranks; of names with the word max or min the extreme."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._numbers: dict[str, list[float]] = defaultdict(list)
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - began

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._numbers[name].append(value)

    def values(self) -> dict[str, float]:
        """The step's row; every rank must call it."""
        gathered = [dict(self._numbers)]
        if self.world_size > 1:
            gathered = [{} for _ in range(self.world_size)]
            torch.distributed.all_gather_object(gathered, dict(self._numbers))
        merged: dict[str, list[float]] = defaultdict(list)
        for numbers in gathered:
            for name, values in numbers.items():
                merged[name] += values
        row = {name: _merge(name, values) for name, values in merged.items()}
        return row | {f"time/{name}": seconds for name, seconds in self._seconds.items()}


def _merge(name: str, values: list[float]) -> float:
    words = re.split("[/_]", name)
    if "max" in words or "min" in words:
        return max(values) if "max" in words else min(values)
    return sum(values) if name == "num_tokens" else sum(values) / len(values)


@torch.no_grad()
def describe(experience: Experience, scores: Scores) -> dict[str, float]:
    """Numbers of one micro-batch; a reward that no prompt of it has is left out."""
    e = experience
    lengths = e.answers.lengths.float()
    ended = lengths[e.answers.finished]
    mask = e.answers.mask
    prompt_tokens = sum(len(ids) for ids in e.prompts.ids)
    numbers: dict[str, float | Tensor] = {
        "num_tokens": prompt_tokens + float(lengths.sum()),
        "completions/mean_length": lengths.mean(),
        "completions/min_length": lengths.min(),
        "completions/max_length": lengths.max(),
        "completions/clipped_ratio": 1 - e.answers.finished.float().mean(),
        "reward": e.answer_rewards.total.mean(),
        "reward_std": e.answer_rewards.total.std(1).mean(),
        "frac_reward_zero_std": 1 - e.answer_advantages.informative.float().mean(),
        "entropy": (scores.entropy * mask).sum() / mask.sum(),
    }
    asked = e.joint_mask.any(1)
    if asked.any():
        numbers |= {
            "pose/valid_frac": e.valid[asked].float().mean(),
            "pose/frac_reward_zero_std": 1 - e.pose_advantages.informative[asked].float().mean(),
        }
    if len(ended):
        numbers |= {
            "completions/mean_terminated_length": ended.mean(),
            "completions/min_terminated_length": ended.min(),
            "completions/max_terminated_length": ended.max(),
        }
    parts = {"format": e.answer_rewards.format, "text": e.answer_rewards.text}
    valid = e.valid[..., None].expand(e.poses.shape[:3])
    nothing = torch.tensor(float("nan"), device=valid.device)
    parts |= {name: torch.where(valid, getattr(e.pose_rewards, name), nothing) for name in ("joint", "semantic")}
    for name, values in parts.items():
        present = values[~values.isnan()]
        if len(present):
            numbers |= {f"rewards/{name}/mean": present.mean(), f"rewards/{name}/std": present.std(correction=0)}
    numbers |= _of_distribution(e, scores)
    return {name: float(value) for name, value in numbers.items()}


def _of_distribution(e: Experience, scores: Scores) -> dict[str, Tensor]:
    candidates = e.valid.shape[1]
    mask = e.joint_mask.repeat_interleave(candidates, 0) & e.valid.flatten()[:, None]
    if not mask.any():
        return {}
    sigma = scores.poses.std()[mask.repeat_interleave(6, 1)]
    entropy = scores.poses.entropy(mask).sum() / (6 * mask.sum())
    return {"pose/sigma_mean": sigma.mean(), "pose/sigma_min": sigma.min(), "pose/entropy_per_dim": entropy}
