"""One HyGRPO step: draw prompts → roll out G answers → score them → draw K poses → reward → advantages → update.

The step is a function of its number and the weights: prompts come from the example stream at positions that the step
decides, and the answers and poses of a group from generators of its position. So a killed run that resumes from a
checkpoint draws what it would have drawn, and neither the number of ranks nor the split into micro-batches changes
what is drawn. A group never leaves its rank, so no reward is gathered. Micro-batches hold prompts of similar length:
a picture with a short question is not padded to a long caption.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.errors import PoseRftError
from pose_rft.hygrpo.advantages import group_advantages
from pose_rft.hygrpo.experience import Experience, hybrid_loss, joint_masks, pose_log_prob
from pose_rft.hygrpo.params import RFTParams, Variant
from pose_rft.hygrpo.pose_draws import pose_noise
from pose_rft.hygrpo.reference import ReferencePolicy
from pose_rft.hygrpo.step_log import StepLog, describe
from pose_rft.inference.rewards import SEMANTIC_TASKS, Rewards
from pose_rft.inference.sampling import Completions
from pose_rft.inference.types import Prompts, Sampler, Score, Scores
from pose_rft.policy.counting import PolicyCosts
from pose_rft.policy.model import PoseLlava
from pose_rft.seeds import torch_generator
from pose_rft.training.engine import Engine
from pose_rft.training.loop import StepStats


@dataclass(frozen=True)
class TrainerComponents:
    """What a trainer works with; each is replaceable.

    draw: position -> prompt. prepare: examples -> prompts on the engine's device.
    before: called with the policy as it is before step `step`'s update; its numbers go into that step's row.
    after: called with what the step's groups were.
    """

    draw: Callable[[int], Example]
    prepare: Callable[[Sequence[Example]], Prompts]
    rollout: Sampler
    score: Score
    rewards: Rewards
    before: Callable[[int], Mapping[str, float]] = lambda step: {}
    after: Callable[[int, Sequence[Experience]], None] = lambda step, experiences: None


def captions_ahead(draw: Callable[[int], Example], positions: int) -> set[str]:
    """The captions that the semantic reward will read in a run of so many prompts."""
    examples = map(draw, range(positions))
    return {example.caption for example in examples if example.task in SEMANTIC_TASKS and example.caption}


class MicroBatch(NamedTuple):
    """positions: of the prompts in the stream; each is used by exactly one rank in one step."""

    positions: tuple[int, ...]
    prompts: Prompts


class Trainer:
    """Runs steps on an engine; `step` fits `training.loop.run`."""

    def __init__(
        self,
        engine: Engine,
        reference: ReferencePolicy,
        tools: TrainerComponents,
        params: RFTParams,
        variant: Variant,
        seed: int,
    ) -> None:
        """reference: the SFT policy, frozen before the first update.

        Raises:
            PoseRftError: the batch does not split evenly over the ranks.
        """
        share = engine.world_size * engine.accumulation
        if params.batch % share:
            raise PoseRftError(
                f"rft.batch is {params.batch}, expected a multiple of {engine.world_size} processes x "
                f"engine.accumulation {engine.accumulation}; change one of them."
            )
        self.engine, self.reference, self.tools = engine, reference, tools
        self.params, self.variant, self.seed = params, variant, seed
        self.micro_batch = params.batch // share
        policy = engine.module
        self.costs = PolicyCosts(policy.config, params.lora) if isinstance(policy, PoseLlava) else None

    def step(self, step: int) -> StepStats:
        """One rollout and its updates.

        Raises:
            PoseRftError: a reward, loss or gradient is not finite; names the samples.
        """
        log = StepLog(self.engine.world_size, self.engine.device, self.costs)
        seen = self.tools.before(step)
        batches = self.micro_batches(step)
        with log.phase("rollout"):
            answers = [self.roll_out(self.engine.module, batch) for batch in batches]
        experiences: list[Experience] = []
        losses = []
        for update in range(self.params.updates_per_rollout):
            for i, batch in enumerate(batches):
                # ZeRO-3 wants all that leads to the loss inside one forward of the engine, so the judging is in there.
                known = experiences[i] if update else None
                total, experience = self.engine.forward(self.loss, batch, answers[i], known, log)
                with log.phase("update"):
                    self.engine.backward(total, batch.prompts.keys)
                if known is None:
                    experiences.append(experience)
                losses.append(float(total.detach()))
            with log.phase("update"):
                log.add({"grad_norm": self.engine.step(step)})
        for experience in experiences:
            log.tally(experience, self.params.updates_per_rollout, encode=not self.params.cache_tokens)
        self.tools.after(step, experiences)
        return StepStats(self.engine.mean(sum(losses) / len(losses)), self.params.batch, {**log.values(), **seen})

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """This rank's share of the step's prompts."""
        size, pieces = self.micro_batch, self.engine.accumulation
        first = step * self.params.batch + self.engine.rank * size * pieces
        prompts = self.tools.prepare([self.tools.draw(position) for position in range(first, first + size * pieces)])
        rows = sorted(range(len(prompts)), key=lambda row: len(prompts.ids[row]))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [MicroBatch(tuple(first + row for row in part), prompts.select(part)) for part in parts]

    def roll_out(self, model: Any, batch: MicroBatch) -> Completions:
        """G answers to each prompt."""
        return self.tools.rollout(model, batch.prompts, self._uniforms(batch.positions))

    def loss(
        self, model: Any, batch: MicroBatch, answers: Completions, known: Experience | None, log: StepLog
    ) -> tuple[Tensor, Experience]:
        """The loss of a micro-batch, and what it was judged by: `known`, or made of this very pass."""
        with log.phase("score"):
            scores = self.tools.score(model, batch.prompts, answers)
        if known is None:
            known = self._experience(model, batch, answers, scores, log)
            log.add(describe(known, scores))
        with log.phase("update"):
            judge = partial(self.tools.rewards.graded, batch.prompts.examples, valid=known.valid)
            loss = hybrid_loss(scores, known, self.params, self.variant, judge)
        log.add(loss.metrics)
        return loss.total, known

    def _uniforms(self, positions: Sequence[int]) -> Tensor:
        """(B, G, R): the random numbers of each group's answers."""
        shape = self.params.group_size, self.params.max_new_tokens
        device = self.engine.device
        return torch.stack(
            [torch.rand(shape, generator=self._generator("tokens", p), device=device) for p in positions]
        )

    def _noise(self, scores: Scores, positions: Sequence[int]) -> Tensor:
        """(B, G, K, …): the standard normal numbers of K poses of each candidate."""
        shape = scores.has_pose.shape[1], self.params.poses_per_answer, scores.poses.noise_width
        generators = [self._generator("poses", position) for position in positions]
        return pose_noise(self.params.pose_draws, shape, generators)

    def _experience(
        self, model: Any, batch: MicroBatch, answers: Completions, scores: Scores, log: StepLog
    ) -> Experience:
        """Draws the poses from the scoring pass, asks the reference, and judges."""
        device = scores.token_log_prob.device
        prompts, examples = batch.prompts, batch.prompts.examples
        posed = torch.tensor([example.pose6d is not None for example in examples], device=device)
        valid = scores.has_pose & posed[:, None]
        joint_mask = joint_masks(examples, device)
        with torch.no_grad():
            with log.phase("score"):
                noise = self._noise(scores, batch.positions)
                poses = scores.poses.at(noise.flatten(0, 1)).unflatten(0, noise.shape[:2])
                with self.reference.use(model) as frozen:
                    reference = self.tools.score(frozen, prompts, answers)
                anchor = reference if self.params.ratio_anchor == "ref" else scores
                per_joint = self.params.pose_ratio == "per_joint"
                pose_anchor = pose_log_prob(anchor.poses.detach(), poses, joint_mask, per_joint)
            with log.phase("reward"):
                answer_rewards = self.tools.rewards.answers(examples, answers)
                pose_rewards = self.tools.rewards.poses(examples, poses, valid)
            floor, form = self.params.advantage_std_floor, self.params.advantage
            totals = answer_rewards.total.to(device)
            answer_advantages = group_advantages(totals, torch.ones_like(valid), floor, form)
            each = valid[..., None].expand(poses.shape[:3]).flatten(1)
            pose_advantages = group_advantages(pose_rewards.value.flatten(1), each, floor, form)
            pose_advantages = pose_advantages.times(self.tools.rewards.weights(examples).to(device))
        return Experience(
            prompts=prompts,
            answers=answers,
            valid=valid,
            joint_mask=joint_mask,
            poses=poses,
            noise=noise,
            token_anchor=anchor.token_log_prob.detach(),
            pose_anchor=pose_anchor,
            reference=reference,
            answer_rewards=answer_rewards,
            pose_rewards=pose_rewards,
            answer_advantages=answer_advantages,
            pose_advantages=pose_advantages,
        )

    def _generator(self, purpose: str, position: int) -> torch.Generator:
        return torch_generator(self.seed, "rft", purpose, position, device=self.engine.device)
