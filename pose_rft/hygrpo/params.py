"""`rft`: every option of HyGRPO, including the choices that the paper leaves open.

Each field names the source of its value: "paper" is arXiv 2508.07804, "R1" is VLM-R1's trainer, whose settings the
paper says it follows. Where the paper leaves a choice open, all published alternatives are available.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from pose_rft.batches.examples import ExampleParams, HeldoutParams
from pose_rft.hygrpo.advantages import AdvantageForm
from pose_rft.hygrpo.objective import KLEstimator, PoseRatio, RatioLevel
from pose_rft.hygrpo.pose_draws import PoseDraws
from pose_rft.hygrpo.pose_gradients import PoseGradient
from pose_rft.inference.rewards import RewardParams
from pose_rft.params import Count, NonNegative, Positive, Section
from pose_rft.policy.params import LoRAParams
from pose_rft.training.engine import EngineParams
from pose_rft.training.losses import LossParams

Variant = Literal["hygrpo", "grpo"]


class StopParams(Section):
    """Limits on a step's metrics; the run ends at the first step that crosses one. `null`: no limit."""

    kl: Positive | None = None  # KL of the answers to the SFT policy, nats per token
    pose_kl: Positive | None = None  # KL of the poses, nats per number
    sigma_below: Positive | None = None  # mean σ of the poses' numbers: it has collapsed
    sigma_above: Positive | None = None  # it has exploded

    def reason(self, row: Mapping[str, float]) -> str | None:
        """Says in a sentence which limit a row of the log has crossed; None if none."""
        limits = (
            ("kl", "above", self.kl),
            ("pose/kl", "above", self.pose_kl),
            ("pose/sigma_mean", "below", self.sigma_below),
            ("pose/sigma_mean", "above", self.sigma_above),
        )
        for name, side, limit in limits:
            value = row.get(name)
            if limit is None or value is None:
                continue
            if value > limit if side == "above" else value < limit:
                return f"{name} is {value:.4g}, {side} its limit {limit:g}"
        return None


class RFTParams(Section):
    """One run of reinforcement fine-tuning."""

    seed: int = 0  # of prompts and draws only; vary it to repeat RFT from one SFT model (seeded by `seed.train`)
    # SFT's losses on the same prompts, added to HyGRPO's, as InstructGPT mixes pretraining in (PPO-ptx). Paper: none.
    supervised: LossParams | None = None
    reinforced: bool = True  # False: those losses alone, at the same learning rate and engine: an equal-time baseline
    steps: Count  # paper: 1,000
    batch: Count  # prompts per update over all ranks; paper: 16, read as prompts (R1's script: 8 GPUs x 1 prompt x 2)
    group_size: int = Field(ge=2)  # G, answers per prompt; paper: not given, R1: 8
    poses_per_answer: Count  # K, poses drawn for each answer with a pose; paper: 1
    pose_draws: PoseDraws = "orthogonal"  # of a group's poses; `hygrpo.pose_draws` says why; paper: independent
    updates_per_rollout: Count = 1  # R1's num_iterations; with the `old` anchor, clipping starts at the second update
    engine: EngineParams  # paper: lr 1e-6, AdamW (0.9, 0.95), cosine
    examples: ExampleParams  # which prompts are drawn
    lora: LoRAParams | None = None  # adapters on the language model; None: full fine-tuning

    temperature: Positive = 1.0  # of tokens, the same in sampling and scoring; R1: 0.9 with top-k 50, here no top-k
    max_new_tokens: Count  # longest answer; pose answers need a dozen
    epsilon: Positive = 0.2  # clip of the answer's ratio; paper: one ε, not given; R1: 0.2
    epsilon_pose: Positive = 0.2  # clip of the pose's ratio, on the scale that `pose_ratio` chooses
    beta_text: NonNegative = 0.2  # weight of the token KL; R1: 0.04, too little (docs/earlier_results.md)
    beta_pose: NonNegative = 0.04  # weight of the pose KL's mean part
    beta_spread: NonNegative = 0.04  # weight of the pose KL's spread part (`spread.py`); eq. 6: the same
    entropy_weight: NonNegative = 0.0  # of the entropy, per number, that a pose lost since SFT; eq. 6: 0
    pose_kl: Literal["sum", "mean"] = "mean"  # KL of a pose: sum over its numbers (eq. 6 as written), or per number
    # Eq. 4 puts π_ref into the ratio; "PPO-style clipping" and "online" mean the sampling policy. With a frozen
    # anchor nearly every ratio of 144 numbers leaves 1 ± ε after a small step, and the pose gradient vanishes.
    ratio_anchor: Literal["old", "ref"] = "old"
    ratio_level: RatioLevel = "token"  # eq. 6 writes one ratio per answer; R1: per token
    pose_ratio: PoseRatio = "sqrt"  # where poses clip; `sum` is eq. 4 as written; see `objective.pose_ratio_scale`
    # Of the pose term relative to the answer's, for any `pose_ratio`: at ratio 1 the gradient is
    # pose_weight · Δ̂ · ∇log N / √d for d labelled numbers. Eq. 6 has no 1/√d: its weight is √d, 12 for a whole pose.
    pose_weight: NonNegative = 1.0
    pose_gradient: PoseGradient = "score"  # how the reward reaches the pose head; paper: score
    # False: the pose term moves μ only; σ changes only through the KL and the shared layers. Paper: true.
    reward_moves_sigma: bool = True
    dpo_beta: Positive = 0.1  # of `pose_gradient: dpo`; DPO's paper: 0.1
    kl_estimator: KLEstimator = "k3+"  # R1: k3
    advantage: AdvantageForm = "z_score"  # rloo: no division by the group's standard deviation; paper: z_score
    advantage_std_floor: NonNegative = 1e-4  # relative; R1 adds 1e-4 to the standard deviation instead
    rewards: RewardParams = RewardParams()

    stop: StopParams = StopParams()
    save_every: Count  # steps between checkpoints
    cache_tokens: bool = True  # keep the frozen encoders' tokens in scratch; False: encode in every step
    heldout: HeldoutParams  # samples whose rewards are tracked during training
    heldout_every: Count  # steps between held-out rewards
    table_every: Count  # steps between pages of the candidates table
    fixed_sentences: Count = 6  # held-out captions whose poses are stored at four steps (paper, section 4.4)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.reinforced and self.supervised is None:
            raise ValueError("reinforced is false and supervised is not given, so nothing would be trained; give one")
        if self.batch % self.engine.accumulation:
            raise ValueError(
                f"batch {self.batch} must be a multiple of engine.accumulation {self.engine.accumulation}, so that "
                "every prompt weighs the same"
            )
        if self.lora is not None and self.lora.dropout:
            raise ValueError(
                f"lora.dropout is {self.lora.dropout}, expected 0: two passes of one policy must agree, or ratios and "
                "the KL to the reference start off 1 and 0"
            )
        return self
