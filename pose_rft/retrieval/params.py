"""`retrieval` in params.yaml: the reward model (PoseScript's architecture), the judge, and how both are trained."""

from typing import Self

from pydantic import model_validator

from pose_rft.params import Count, Depth, Fraction, NonNegative, Positive, Section, Width


class SentenceParams(Section):
    """model: `all-MiniLM-L6-v2` (installed with the `sample` extra), a folder, or a hub id such as `BAAI/bge-m3`.

    layers: number of transformer layers used for token features (null: all). Sentence vectors always use all layers.
    """

    model: str
    layers: Depth | None = None


class Schedule(Section):
    """`steps` steps of `batch` pose-text pairs; Adam with cosine decay from `learning_rate` to 0."""

    steps: Count
    batch: Count
    learning_rate: Positive


class TransformerParams(Section):
    """The trainable transformer on top of frozen token features; its width is the latent size."""

    layers: Depth
    heads: Depth = 4
    feedforward: Width
    dropout: Fraction = 0.1


class RewardModelParams(Section):
    """PoseScript's text-pose model. released: a PoseScript checkpoint to use unchanged instead of training a model."""

    released: str | None = None
    sentence: SentenceParams
    latent: Width
    text: TransformerParams
    pose_neurons: Width = 512
    pose_bottleneck: Width = 32
    pretrain: Schedule
    finetune: Schedule


class JudgeModelParams(Section):
    """The judge: learned word embeddings and a GRU for text, 6D rotations and joint positions for poses."""

    latent: Width
    word_width: Width
    recurrent_width: Width
    pose_width: Width
    dropout: Fraction = 0.1
    pretrain: Schedule
    finetune: Schedule


class RetrievalParams(Section):
    """mirror: share of pairs that are mirrored left-right. validate_every, save_every: in steps.

    pose_noise: standard deviation of a random rotation of each joint in training, degrees: a policy's samples are
    noisy, and a model that never saw noise scores them arbitrarily. pretrain_captions: number of automatic captions
    used per pose (null: all). members: number of reward models in the ensemble, which differ in their seed
    (`ensemble.py`); recall is measured with the first.
    """

    mirror: Fraction = 0.5  # PoseScript's
    pose_noise: NonNegative = 0.0
    pretrain_captions: Count | None = None
    validate_every: Count
    save_every: Count
    members: Count = 1
    reward: RewardModelParams
    judge: JudgeModelParams

    @model_validator(mode="after")
    def _one_release_is_one_member(self) -> Self:
        if self.reward.released and self.members > 1:
            raise ValueError(f"members is {self.members}, but reward.released is one model; leave it out or set 1")
        return self
