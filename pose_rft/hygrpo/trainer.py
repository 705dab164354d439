"""One HyGRPO step: draw prompts → roll out G answers → score them → draw K poses → reward → advantages → update.

A step depends only on its number and the weights: the step number fixes the positions of its prompts in the example
stream, and each position seeds the generators of its group's answers and poses. So a run that resumes from a
checkpoint makes the same draws as an uninterrupted one, and neither the number of ranks nor the split into
micro-batches changes them. A group never leaves its rank, so no reward is gathered. Micro-batches hold prompts of
similar length: an image with a short question is not padded to a long caption.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
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
    """The replaceable parts of a trainer.

    draw: position -> prompt. prepare: examples -> prompts on the engine's device.
    taught: supervised loss of a micro-batch, added to the RL loss; its float is the mean number of poses in one.
    before: called before the update of step `step`; its numbers go into that step's row.
    after: called with the step's groups.
    """

    draw: Callable[[int], Example]
    prepare: Callable[[Sequence[Example]], Prompts]
    rollout: Sampler
    score: Score
    rewards: Rewards
    taught: Callable[[Any, Sequence[Example], float], Tensor] | None = None
    before: Callable[[int], Mapping[str, float]] = lambda step: {}
    after: Callable[[int, Sequence[Experience]], None] = lambda step, experiences: None


def captions_ahead(draw: Callable[[int], Example], positions: int) -> set[str]:
    """The captions that the semantic reward will embed in a run of `positions` prompts."""
    examples = map(draw, range(positions))
    return {example.caption for example in examples if example.task in SEMANTIC_TASKS and example.caption}


class MicroBatch(NamedTuple):
    """positions: of the prompts in the example stream; exactly one rank uses each, in one step."""

    positions: tuple[int, ...]
    prompts: Prompts


class Drawn(NamedTuple):
    """The poses of a micro-batch's answers; fields as in `Experience`."""

    poses: Tensor
    noise: Tensor
    valid: Tensor
    joint_mask: Tensor


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
        """Prompts → completions → scores and poses → rewards and advantages → update.

        Raises:
            PoseRftError: a reward, loss or gradient is not finite; the message names the samples.
        """
        log = StepLog(self.engine.world_size, self.engine.device, self.costs)
        seen = self.tools.before(step)
        batches = self.prompts(step)
        completions = [self.completions(self.engine.module, batch, log) for batch in batches]
        experiences: list[Experience] = []

        def loss(model: Any, i: int) -> Tensor:  # one forward of the engine: ZeRO-3 needs every pass inside it
            scores = self.scores(model, batches[i], completions[i], log)
            if i == len(experiences):
                poses = self.poses(batches[i], scores, log)
                experiences.append(self.rewards_and_advantages(model, batches[i], completions[i], scores, poses, log))
            return self.objective(scores, experiences[i], log) + self.supervision(model, batches[i], step, log)

        losses = [self.update(step, loss, batches, log) for _ in range(self.params.updates_per_rollout)]
        for experience in experiences:
            log.tally(experience, self.params.updates_per_rollout, encode=not self.params.cache_tokens)
        self.tools.after(step, experiences)
        mean = sum(chain(*losses)) / (len(losses) * len(batches))
        return StepStats(self.engine.mean(mean), self.params.batch, {**log.values(), **seen})

    def prompts(self, step: int) -> list[MicroBatch]:
        """This rank's share of the step's prompts."""
        size, pieces = self.micro_batch, self.engine.accumulation
        first = step * self.params.batch + self.engine.rank * size * pieces
        prompts = self.tools.prepare([self.tools.draw(position) for position in range(first, first + size * pieces)])
        rows = sorted(range(len(prompts)), key=lambda row: len(prompts.ids[row]))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [MicroBatch(tuple(first + row for row in part), prompts.select(part)) for part in parts]

    def completions(self, model: Any, batch: MicroBatch, log: StepLog) -> Completions:
        """G answers to each prompt."""
        with log.phase("rollout"):
            return self.tools.rollout(model, batch.prompts, self._uniforms(batch.positions))

    def scores(self, model: Any, batch: MicroBatch, completions: Completions, log: StepLog) -> Scores:
        """Scores of the answers under the policy being trained, with gradient."""
        with log.phase("score"):
            return self.tools.score(model, batch.prompts, completions)

    @torch.no_grad()
    def poses(self, batch: MicroBatch, scores: Scores, log: StepLog) -> Drawn:
        """K poses of each answer, drawn from the scoring pass."""
        with log.phase("score"):
            device, examples = scores.token_log_prob.device, batch.prompts.examples
            posed = torch.tensor([example.pose6d is not None for example in examples], device=device)
            noise = self._noise(scores, batch.positions)
            poses = scores.poses.at(noise.flatten(0, 1)).unflatten(0, noise.shape[:2])
            return Drawn(poses, noise, scores.has_pose & posed[:, None], joint_masks(examples, device))

    @torch.no_grad()
    def rewards_and_advantages(
        self, model: Any, batch: MicroBatch, completions: Completions, scores: Scores, drawn: Drawn, log: StepLog
    ) -> Experience:
        """Scores answers and poses with the reference and the reward models; computes their advantages in the group."""
        examples, valid = batch.prompts.examples, drawn.valid
        with log.phase("score"):
            with self.reference.use(model) as frozen:
                reference = self.tools.score(frozen, batch.prompts, completions)
            anchor = reference if self.params.ratio_anchor == "ref" else scores
            per_joint = self.params.pose_ratio == "per_joint"
            pose_anchor = pose_log_prob(anchor.poses.detach(), drawn.poses, drawn.joint_mask, per_joint)
        with log.phase("reward"):
            answer_rewards = self.tools.rewards.answers(examples, completions)
            pose_rewards = self.tools.rewards.poses(examples, drawn.poses, valid)
        floor, form = self.params.advantage_std_floor, self.params.advantage
        totals = answer_rewards.total.to(valid.device)
        answer_advantages = group_advantages(totals, torch.ones_like(valid), floor, form)
        each = valid[..., None].expand(drawn.poses.shape[:3]).flatten(1)
        pose_advantages = group_advantages(pose_rewards.value.flatten(1), each, floor, form)
        experience = Experience(
            prompts=batch.prompts,
            answers=completions,
            **drawn._asdict(),
            token_anchor=anchor.token_log_prob.detach(),
            pose_anchor=pose_anchor,
            reference=reference,
            answer_rewards=answer_rewards,
            pose_rewards=pose_rewards,
            answer_advantages=answer_advantages,
            pose_advantages=pose_advantages.times(self.tools.rewards.weights(examples).to(valid.device)),
        )
        log.add(describe(experience, scores))
        return experience

    def objective(self, scores: Scores, experience: Experience, log: StepLog) -> Tensor:
        """The loss of a micro-batch."""
        with log.phase("update"):
            judge = partial(self.tools.rewards.graded, experience.prompts.examples, valid=experience.valid)
            loss = hybrid_loss(scores, experience, self.params, self.variant, judge)
        log.add(loss.metrics)
        return loss.total

    def supervision(self, model: Any, batch: MicroBatch, step: int, log: StepLog) -> Tensor | float:
        """SFT's loss of a micro-batch, 0 if it is off; a pose weighs the same in every micro-batch."""
        if self.tools.taught is None:
            return 0.0
        pieces, first = self.engine.world_size * self.engine.accumulation, step * self.params.batch
        drawn = map(self.tools.draw, range(first, first + self.params.batch))
        poses = sum(example.pose6d is not None for example in drawn) / pieces
        with log.phase("update"):
            loss = self.tools.taught(model, batch.prompts.examples, poses)
        log.add({"supervised": float(loss.detach())})
        return loss

    def update(
        self, step: int, loss: Callable[[Any, int], Tensor], batches: Sequence[MicroBatch], log: StepLog
    ) -> list[float]:
        """Takes one optimiser step on the losses of all micro-batches; returns these losses."""
        losses = []
        for i, batch in enumerate(batches):
            total = self.engine.forward(loss, i)
            with log.phase("update"):
                self.engine.backward(total, batch.prompts.keys)
            losses.append(float(total.detach()))
        with log.phase("update"):
            log.add({"grad_norm": self.engine.step(step)})
        return losses

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

    def _generator(self, purpose: str, position: int) -> torch.Generator:
        return torch_generator(self.seed, "rft", purpose, position, device=self.engine.device)
