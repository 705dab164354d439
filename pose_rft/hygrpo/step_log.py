"""The metrics of one step: TRL's names for the text branch, the same under `pose/` for the pose branch, and the cost.

Names follow TRL's GRPO documentation ("Logged metrics"), so that curves of other GRPO runs can be compared: `reward`,
`reward_std`, `rewards/<name>/mean`, `frac_reward_zero_std`, `completions/...`, `entropy`, `kl`, `clip_ratio/...`,
`num_tokens` (of this step, prompts counted once), `step_time`. Cost, over all ranks: `tokens_per_second/unique` counts
a prompt once, `tokens_per_second/logical` once per answer, like a trainer that repeats prompts; `flops` are those that
the step requires (`policy/counting.py`), `flops_per_second` is the rate per rank; `memory/max_gib` is the maximum over
ranks. `time/...` are seconds of this rank.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from pose_rft.hygrpo.experience import Experience
from pose_rft.inference.types import Scores
from pose_rft.policy.counting import Group, PolicyCosts
from pose_rft.training import ranks
from pose_rft.training.devices import GIB, peak_memory

PHASES = ("rollout", "score", "reward", "update")
LOGICAL = "num_tokens/logical"
SUMMED = ("num_tokens", LOGICAL, "flops")


class StepLog:
    """Averages over micro-batches, updates and ranks; takes the extreme of names with max or min, the sum of counts.

    Its clock starts at construction.

    Args:
        costs: cost model of the policy; without it the row has no `flops`.
    """

    def __init__(self, world_size: int, device: torch.device, costs: PolicyCosts | None = None) -> None:
        self.world_size, self.costs, self.device = world_size, costs, device
        self._numbers: dict[str, list[float]] = defaultdict(list)
        self._seconds = dict.fromkeys(PHASES, 0.0)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._began = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # kernels run asynchronously
        return time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times the block as one phase of the step."""
        began = self._now()
        try:
            yield
        finally:
            self._seconds[name] += self._now() - began

    def tally(self, experience: Experience, updates: int, encode: bool) -> None:
        """Counts the work on one micro-batch; `encode`: its images went through the frozen encoders."""
        e = experience
        groups = [
            Group(len(ids), tuple(lengths), example.image is not None)
            for ids, lengths, example in zip(e.prompts.ids, e.answers.lengths.tolist(), e.prompts.examples, strict=True)
        ]
        self.add({"num_tokens": sum(g.unique for g in groups), LOGICAL: sum(g.logical for g in groups)})
        if self.costs is not None:
            self.add({"flops": self.costs.rft_step(groups, updates, encode).total})

    def add(self, values: Mapping[str, float]) -> None:
        """Adds numbers to the step's row."""
        for name, value in values.items():
            self._numbers[name].append(value)

    def values(self) -> dict[str, float]:
        """Returns the step's row; every rank must call it."""
        self.add({"memory/max_gib": peak_memory(self.device) / GIB})
        seconds = self._now() - self._began
        gathered = [dict(self._numbers)]
        if self.world_size > 1:
            gathered = ranks.gather(self._numbers, self.device)
        merged: dict[str, list[float]] = defaultdict(list)
        for numbers in gathered:
            for name, values in numbers.items():
                merged[name] += values
        row = {name: _merge(name, values) for name, values in merged.items()}
        row |= {f"time/{name}": phase for name, phase in self._seconds.items()} | {"step_time": seconds}
        if LOGICAL in row:
            row["tokens_per_second/unique"] = row["num_tokens"] / seconds
            row["tokens_per_second/logical"] = row.pop(LOGICAL) / seconds
        if "flops" in row:
            row["flops_per_second"] = row["flops"] / (seconds * self.world_size)
        return row


def _merge(name: str, values: list[float]) -> float:
    words = re.split("[/_]", name)
    if "max" in words or "min" in words:
        return max(values) if "max" in words else min(values)
    return sum(values) if name in SUMMED else sum(values) / len(values)


@torch.no_grad()
def describe(experience: Experience, scores: Scores) -> dict[str, float]:
    """Metrics of one micro-batch; omits a reward that none of its prompts has."""
    e = experience
    lengths = e.answers.lengths.float()
    ended = lengths[e.answers.finished]
    mask = e.answers.mask
    numbers: dict[str, float | Tensor] = {
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
