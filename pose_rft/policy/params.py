"""The user's settings of the policy: params sections `base_model`, `pose_encoder`, `policy` and `lora`.

`base_model` selects the LLaVA (a hub id, a local folder, or the sizes of a tiny one), `pose_encoder` the encoder beside
CLIP, and `policy` the parts around both: how pose tokens are fused with CLIP tokens (paper, appendix A) and the form of
the pose distribution (paper eq. 2). The model itself runs without this module (`config.py`), so that it can be measured
where only torch, transformers and peft are installed.
"""

from typing import Annotated, Literal

from pydantic import Field

from pose_rft.errors import PoseRftError
from pose_rft.params import Count, Depth, Fraction, NonNegative, Pixels, Positive, Section, Width
from pose_rft.policy.config import FusionKind, PosePrior


class TinyVisionParams(Section):
    """A CLIP vision tower small enough to train on a CPU; `patch` must divide image.size."""

    width: Width
    layers: Annotated[Depth, Field(ge=2)]  # LLaVA reads the second-to-last layer
    heads: Depth
    patch: Pixels


class TinyLanguageParams(Section):
    """A Llama small enough to train on a CPU."""

    width: Width
    layers: Depth
    heads: Depth


class TinyParams(Section):
    """Sizes of the tiny parts; omit `language` if `source` is itself a language model."""

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
    """`base_model`: where the LLaVA comes from, before fine-tuning.

    source: `tiny`; `smollm2`, a small language model with a tiny CLIP tower (`smollm.py`); a hub id such as
        `llava-hf/llava-1.5-7b-hf`, or a local folder in that format.
    """

    source: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    tiny: TinyParams | None = None
    contrastive: ContrastiveParams | None = None

    @property
    def is_made_here(self) -> bool:
        """Whether the stage `base_model` assembles the LLaVA instead of loading it whole."""
        return self.source in ("tiny", "smollm2")

    def sizes(self) -> TinyParams:
        """The sizes of the parts built here; `language` is None if the source is itself a language model.

        Raises:
            PoseRftError: sizes are missing, or are given for a part that is not built here.
        """
        if self.tiny is None or (self.tiny.language is None) != (self.source != "tiny"):
            wanted = "of vision and language" if self.source == "tiny" else "of vision alone"
            raise PoseRftError(f"base_model.source is {self.source}, expected `base_model.tiny` sizes {wanted}.")
        return self.tiny


class LogStdParams(Section):
    """log σ of each of the 144 numbers: initial value (unpublished), and soft bounds against collapse and explosion."""

    min: float = -5.0
    max: float = -0.5
    init: float


class PolicyParams(Section):
    """`policy`: the parts around LLaVA.

    pose_prior: `mean` (as in the paper): the language model alone predicts the pose; `encoder`: the distribution's mean
        starts at the pose that the encoder predicts, and the language model corrects it.
    inner_width: width of the hidden layers of W_b and the pose head; null: the language model's, as in the paper.
    shortcuts: adds a linear skip connection to W_b and to the pose head. With inner_width and shortcuts, a small
        language model copies a pose through its tokens many times faster (docs/photographs.md).
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
    """The MediaPipe landmark network (`variant`), and the lifter behind it: `layers` residual layers of `width`."""

    variant: Literal["lite", "full", "heavy"] = "full"
    width: Width
    layers: Depth


class LifterTrainingParams(Section):
    """Training of the lifter. rotation, joints: loss weights of errors in rotation matrices and in joints (metres)."""

    steps: int = Field(ge=0)
    batch: Count
    learning_rate: Positive
    weight_decay: NonNegative = 0.05
    rotation: NonNegative = 2.0
    joints: NonNegative = 10.0


class PoseEncoderParams(Section):
    """`pose_encoder`: its kind, and the settings of that kind.

    `vitpose` and `hmr2` import a checkpoint, `blazepose` trains a lifter, `conv_vit` trains the whole network.
    checkpoint: `vitpose`: hub id or folder of a VitPoseForPoseEstimation; `hmr2`: an HMR2.0 or TokenHMR .ckpt file.
    """

    kind: Literal["blazepose", "conv_vit", "vitpose", "hmr2"]
    checkpoint: str | None = None
    blazepose: BlazePoseParams | None = None
    lifter: LifterTrainingParams | None = None
    conv_vit: ConvVitParams | None = None
    training: KeypointTrainingParams | None = None


class LoRAParams(Section):
    """LoRA's rank, alpha (scale = alpha / rank), dropout, and the target Linear layers by their names in Llama."""

    rank: Width
    alpha: Positive
    dropout: Fraction
    targets: Annotated[list[str], Field(min_length=1)]
