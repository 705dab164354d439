"""The configuration stored in a model folder, and the constants that all parts of the policy share.

The tiny and the 7B model are the same class; only the configuration differs.
"""

from typing import Any, ClassVar, Literal, get_args

from transformers import AutoConfig, LlavaConfig, PretrainedConfig
from transformers.configuration_utils import SubConfigSpec

JOINTS = 24
"""Number of SMPL joints; joint 0 is the root in the camera frame."""
POSE_NUMBERS = JOINTS * 6
"""Size of a pose action: for each of 24 joints, the first two columns of its rotation matrix."""

CLIP_NORM = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation of RGB in [0, 1] with which OpenAI's CLIP was trained."""
IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The same for ViTPose and HMR2.0."""

FusionKind = Literal["add", "concat", "channel", "clip_only"]
HeadKind = Literal["point", "gaussian"]
Covariance = Literal["diagonal", "low_rank"]
PosePrior = Literal["mean", "encoder"]
"""Initial mean of the pose distribution: the training set's mean pose (as in the paper), or the encoder's
prediction."""


class ConvVitConfig(PretrainedConfig):
    """The small pose encoder of `micro`: residual convolutions down to stride 16, then transformer layers."""

    model_type = "pose_conv_vit"

    image_size: int = 96
    width: int = 32
    layers: int = 2
    heads: int = 4


class Hmr2VitConfig(PretrainedConfig):
    """The ViT of HMR2.0 and TokenHMR (ViT-H: 32 layers of 1280); `image_size` is (height, width) in px."""

    model_type = "pose_hmr2_vit"

    image_size: tuple[int, int] | list[int] = (256, 192)
    patch_size: int = 16
    hidden_size: int = 1280
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    mlp_ratio: int = 4


class BlazePoseConfig(PretrainedConfig):
    """MediaPipe's pose landmark network and the lifter behind it (`policy/blazepose.py`).

    graph: the network as read by `io/tflite.py`, with four outputs: landmarks, score, world landmarks, last feature
    maps. variant: lite, full or heavy; origin: package and licence of its weights. lifter_width, lifter_layers: size of
    the network that maps landmarks and feature maps to a pose.
    """

    model_type = "pose_blazepose"

    image_size: int = 256
    variant: str = "full"
    origin: Any = None
    graph: Any = None
    lifter_width: int = 512
    lifter_layers: int = 3


for _config in (ConvVitConfig, Hmr2VitConfig, BlazePoseConfig):
    AutoConfig.register(_config.model_type, _config)


class PoseLlavaConfig(PretrainedConfig):
    """LLaVA, a pose encoder (absent for `clip_only`), their fusion, and the pose head.

    suppressed_token_ids: tokens that the policy never emits (`<image>`, padding, unused rows).
    adapters: rank, alpha and targets of the LoRA adapters stored beside the weights, oldest first (`lora.py`).
    sigma_scale: calibration factors of each joint's σ, {image | text: 24 numbers} (`calibration.py`), or None.
    """

    model_type = "pose_llava"
    sub_configs_defaults: ClassVar = {
        "llava": SubConfigSpec(config_class=LlavaConfig),
        "pose_encoder": SubConfigSpec(config_class=AutoConfig, model_type="pose_conv_vit", optional=True),
    }

    llava: Any = None
    pose_encoder: Any = None
    fusion: FusionKind = "add"
    pose_head: HeadKind = "gaussian"
    pose_prior: PosePrior = "mean"
    inner_width: int | None = None
    shortcuts: bool = False
    covariance: Covariance = "diagonal"
    covariance_rank: int = 4
    log_std_min: float = -5.0
    log_std_max: float = -0.5
    log_std_init: float = -2.0
    mean_scale: float = 0.3
    pose_token_id: int = 0
    end_token_id: int = 2
    suppressed_token_ids: list[int] | None = None
    adapters: list[dict[str, Any]] | None = None
    sigma_scale: dict[str, list[float]] | None = None
    tie_word_embeddings: bool = False

    def check(self) -> None:
        """Rejects unknown option values, which would otherwise silently be taken for known ones.

        Raises:
            ValueError: an option has an unknown value.
        """
        known = {"fusion": FusionKind, "pose_head": HeadKind, "pose_prior": PosePrior, "covariance": Covariance}
        for name, words in known.items():
            if getattr(self, name) not in get_args(words):
                raise ValueError(
                    f"`{name}` is {getattr(self, name)!r:.40}, expected one of {', '.join(get_args(words))}"
                )

    def get_text_config(self, *args: object, **kwargs: object) -> PretrainedConfig:
        """The language model's configuration, where transformers looks up sizes."""
        return self.llava.get_text_config(*args, **kwargs)


AutoConfig.register(PoseLlavaConfig.model_type, PoseLlavaConfig)
