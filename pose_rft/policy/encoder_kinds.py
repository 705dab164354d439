"""The pose encoders by the `model_type` of their configurations."""

from transformers import PretrainedConfig, VitPoseConfig

from pose_rft.errors import PoseRftError
from pose_rft.policy.blazepose import BlazePose
from pose_rft.policy.config import BlazePoseConfig, ConvVitConfig, Hmr2VitConfig
from pose_rft.policy.pose_encoder import ConvVit, Hmr2Vit, PoseEncoder, VitPoseEncoder

KINDS: dict[str, type[PoseEncoder]] = {
    BlazePoseConfig.model_type: BlazePose,
    ConvVitConfig.model_type: ConvVit,
    VitPoseConfig.model_type: VitPoseEncoder,
    Hmr2VitConfig.model_type: Hmr2Vit,
}


def pose_encoder_from_config(config: PretrainedConfig) -> PoseEncoder:
    """Builds an encoder with fresh weights.

    Raises:
        PoseRftError: the configuration is of an unknown kind.
    """
    if config.model_type not in KINDS:
        raise PoseRftError(f"{config.model_type!r} is no pose encoder, expected one of {', '.join(KINDS)}.")
    return KINDS[config.model_type](config)
