"""What a user writes about the policy: the params sections `base_model`, `pose_encoder`, `policy` and `lora`.

`base_model` names LLaVA (a hub id, a local folder, or the sizes of a tiny one), `pose_encoder` what looks at the
person beside CLIP, `policy` what is put around both: how the pose tokens join the CLIP tokens (paper, appendix A) and
the shape of the pose distribution (paper eq. 2). The model itself needs none of this to run (`config.py`), so that it
can be measured where only torch, transformers and peft are installed.
"""

from typing import Annotated, Literal

from pydantic import Field

from pose_rft.errors import PoseRftError
from pose_rft.params import Count, Depth, Fraction, NonNegative, Pixels, Positive, Section, Width
from pose_rft.policy.config import FusionKind, PosePrior


class TinyVisionParams(Section):
    """A CLIP vision tower that a CPU can train: `patch` divides image.size."""

    width: Width
    layers: Annotated[Depth, Field(ge=2)]  # LLaVA reads the last layer but one
    heads: Depth
    patch: Pixels


class TinyLanguageParams(Section):
    """A Llama that a CPU can train."""

    width: Width
    layers: Depth
    heads: Depth


class TinyParams(Section):
    """language: not for a `source` that is a language model itself."""

    vision: TinyVisionParams
    language: TinyLanguageParams | None = None


class ContrastiveParams(Section):
    """Contrastive training of the tiny CLIP tower on the image-caption pairs of the shards."""

    steps: int = Field(ge=0)
    batch: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: NonNegative = 0.05
    width: Width = 128  # of the space that images and captions share


class BaseModelParams(Section):
    """`base_model`: where the untuned LLaVA comes from.

    source: `tiny`; `smollm2`, a small language model with a tiny CLIP tower (`smollm.py`); a hub id such as
        `llava-hf/llava-1.5-7b-hf`, or a local folder in that format.
    """

    source: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    tiny: TinyParams | None = None
    contrastive: ContrastiveParams | None = None

    @property
    def is_made_here(self) -> bool:
        """Whether the LLaVA is put together by `base_model`, not loaded whole."""
        return self.source in ("tiny", "smollm2")

    def sizes(self) -> TinyParams:
        """Of the parts that are made here: `language` is None where the source is a language model.

        Raises:
            PoseRftError: sizes are missing, or some are given that nothing has.
        """
        if self.tiny is None or (self.tiny.language is None) != (self.source != "tiny"):
            wanted = "of vision and language" if self.source == "tiny" else "of vision alone"
            raise PoseRftError(f"base_model.source is {self.source}, expected `base_model.tiny` sizes {wanted}.")
        return self.tiny


class LogStdParams(Section):
    """log σ of each of the 144 numbers: start value (none is published) and the soft bounds that keep σ from collapsing
    or exploding."""

    min: float = -5.0
    max: float = -0.5
    init: float


class PolicyParams(Section):
    """`policy`: the parts around LLaVA.

    pose_prior: `mean`, the paper's form: the pose comes out of the language model alone; `encoder`: the mean of the
        distribution starts at the pose that the encoder reads, and the language model corrects it.
    inner_width: of the hidden layers of W_b and of the pose head; null: that of the language model, as in the paper.
    shortcuts: a linear map beside the two layers of W_b and of the pose head. A small language model copies a pose
        through its tokens many times faster with both (docs/photographs.md).
    covariance_rank: r of Σ = diag(σ²) + U Uᵀ, used by `low_rank` only.
    mean_scale: the head's mean is mean_pose + mean_scale · MLP(state).
    """

    fusion: FusionKind = "add"
    pose_prior: PosePrior = "mean"
    inner_width: Width | None = None
    shortcuts: bool = False
    covariance: Literal["diagonal", "low_rank"] = "diagonal"
    covariance_rank: Annotated[int, Field(ge=1, le=144)] = 4
    log_std: LogStdParams
    mean_scale: Positive = 1.0


class ConvVitParams(Section):
    """Sizes of `conv_vit`: channels at stride 4 (tokens are 4x as wide), transformer layers and heads."""

    width: Width
    layers: Depth
    heads: Depth


class KeypointTrainingParams(Section):
    """Training of `conv_vit` on 2D keypoints."""

    steps: int = Field(ge=0)
    batch: Count
    learning_rate: Positive
    weight_decay: NonNegative


class BlazePoseParams(Section):
    """Which of MediaPipe's landmark networks, and the size of the lifter behind it: residual layers of `width`."""

    variant: Literal["lite", "full", "heavy"] = "full"
    width: Width
    layers: Depth


class LifterTrainingParams(Section):
    """Training of the lifter. rotation, joints: weights of the distance of rotation matrices and of joints (metres)."""

    steps: int = Field(ge=0)
    batch: Count
    learning_rate: Positive
    weight_decay: NonNegative = 0.05
    rotation: NonNegative = 2.0
    joints: NonNegative = 10.0


class PoseEncoderParams(Section):
    """`pose_encoder`: kind, and a checkpoint to import (`vitpose`, `hmr2`), a landmark network with a lifter to train
    (`blazepose`), or a network to train (`conv_vit`).

    checkpoint: `vitpose`: hub id or folder of a VitPoseForPoseEstimation; `hmr2`: a HMR2.0 or TokenHMR .ckpt file.
    """

    kind: Literal["blazepose", "conv_vit", "vitpose", "hmr2"]
    checkpoint: str | None = None
    blazepose: BlazePoseParams | None = None
    lifter: LifterTrainingParams | None = None
    conv_vit: ConvVitParams | None = None
    training: KeypointTrainingParams | None = None


class LoRAParams(Section):
    """rank, alpha (the adapter is scaled by alpha / rank), dropout, and the Linear layers by their names in Llama."""

    rank: Width
    alpha: Positive
    dropout: Fraction
    targets: Annotated[list[str], Field(min_length=1)]
