"""The architecture of a preset's policy, derived from the preset alone: no weights, no hub, no shards.

Sizes of released models are copied from their configuration files: LLaVA-1.5 (arXiv 2310.03744, Vicuna-7B and -13B with
CLIP ViT-L/14-336; the hub's copies pad 32,002 tokens to 32,064 rows), ViTPose and ViTPose+ (arXiv 2212.04246). For a
model that is not listed, its folder is read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, LlavaConfig, PretrainedConfig
from transformers.models.vitpose import VitPoseConfig
from transformers.models.vitpose_backbone import VitPoseBackboneConfig

from pose_rft.errors import PoseRftError
from pose_rft.io.model_folder import CONFIG, check_sizes, one_sentence, read_config
from pose_rft.policy.config import ConvVitConfig, HeadKind, Hmr2VitConfig, PoseLlavaConfig

if TYPE_CHECKING:  # the model runs without pydantic
    from pose_rft.policy.params import (
        BaseModelParams,
        PolicyParams,
        PoseEncoderParams,
        TinyLanguageParams,
        TinyVisionParams,
    )


class Llama(NamedTuple):
    """Sizes of a Llama: hidden width, MLP width, layers, heads, vocabulary rows, and key-value heads if shared."""

    width: int
    inner: int
    layers: int
    heads: int
    rows: int
    shared_heads: int | None = None


class VitPose(NamedTuple):
    """Sizes of a ViTPose: width, layers, heads; for ViTPose+ the MLP's experts and how many outputs they produce."""

    width: int
    layers: int
    heads: int
    experts: int = 1
    part: int = 256


LLAVA = {
    "llava-hf/llava-1.5-7b-hf": Llama(4096, 11008, 32, 32, 32064),
    "llava-hf/llava-1.5-13b-hf": Llama(5120, 13824, 40, 40, 32064),
}
SMOLLM2 = Llama(576, 1536, 30, 9, 49216, shared_heads=3)  # 49,152 tokens, `<image>` and `<POSE>`, padded
VITPOSE = {
    "usyd-community/vitpose-base": VitPose(768, 12, 12),
    "usyd-community/vitpose-plus-base": VitPose(768, 12, 12, 6, 192),
    "usyd-community/vitpose-plus-large": VitPose(1024, 24, 16, 6, 256),
    "usyd-community/vitpose-plus-huge": VitPose(1280, 32, 16, 6, 320),
}
KEYPOINTS = 17  # COCO's, which ViTPose's own head predicts


def llama_config(sizes: Llama, **others: Any) -> LlamaConfig:
    """The configuration of a Llama of these sizes; `others`: further fields of it."""
    return LlamaConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.shared_heads or sizes.heads,
        vocab_size=sizes.rows,
        **others,
    )


def clip_vision_config(params: "TinyVisionParams", image_size: int) -> CLIPVisionConfig:
    """The configuration of the tiny CLIP tower; 36 tokens at 96 px and patch 16.

    Raises:
        PoseRftError: the patch size does not divide the image size.
    """
    if image_size % params.patch:
        raise PoseRftError(f"image.size is {image_size} px, expected a multiple of the patch of {params.patch} px.")
    return CLIPVisionConfig(
        hidden_size=params.width,
        intermediate_size=2 * params.width,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        image_size=image_size,
        patch_size=params.patch,
    )


def tiny_text_config(language: "TinyLanguageParams", rows: int, **tokens: Any) -> LlamaConfig:
    """The tiny Llama with `rows` vocabulary rows; tokens: bos_token_id, eos_token_id, pad_token_id."""
    return llama_config(
        Llama(language.width, 8 * language.width // 3 // 32 * 32, language.layers, language.heads, rows),
        max_position_embeddings=2048,
        # 0.02 suits a width of 4096; at a width of 160, hardly any signal would pass three layers.
        initializer_range=language.width**-0.5,
        **tokens,
    )


def small_llava_config(
    vision: "TinyVisionParams", image_size: int, text: LlamaConfig, image_token: int = 0
) -> LlavaConfig:
    """A LLaVA made of a tiny CLIP tower and a small Llama; image_token: the id of `<image>`."""
    return LlavaConfig(
        vision_config=clip_vision_config(vision, image_size),
        text_config=text,
        image_token_index=image_token,
        image_seq_length=(image_size // vision.patch) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def llava_config(source: str) -> LlavaConfig:
    """The configuration of a LLaVA that is not tiny: a listed hub id, or a folder.

    Raises:
        PoseRftError: `source` is neither.
    """
    if source in LLAVA:
        text = llama_config(LLAVA[source], max_position_embeddings=4096, rms_norm_eps=1e-5)
        return LlavaConfig(text_config=text)  # its default tower is CLIP ViT-L/14-336
    return _of_folder(source, "base_model.source", LLAVA)


def pose_encoder_config(params: "PoseEncoderParams", image_size: int) -> PretrainedConfig:
    """The configuration of a pose encoder for crops of `image_size` px.

    Raises:
        PoseRftError: sizes are missing, or the checkpoint is neither listed nor a folder.
    """
    if params.kind == "hmr2":
        return Hmr2VitConfig()
    if params.kind == "conv_vit":
        return conv_vit_config(params, image_size)
    if params.kind == "blazepose":
        from pose_rft.policy.blazepose import blazepose_config  # reads the fetched file

        if params.blazepose is None:
            raise PoseRftError("`pose_encoder.blazepose` is missing, expected variant, width and layers.")
        return blazepose_config(params.blazepose)[0]
    if params.checkpoint not in VITPOSE:
        return _of_folder(str(params.checkpoint), "pose_encoder.checkpoint", VITPOSE)
    listed = VITPOSE[params.checkpoint]
    backbone = VitPoseBackboneConfig(  # type: ignore[call-arg]
        hidden_size=listed.width,
        num_hidden_layers=listed.layers,
        num_attention_heads=listed.heads,
        num_experts=listed.experts,
        part_features=listed.part,
        out_indices=[listed.layers],
    )
    return VitPoseConfig(backbone_config=backbone, num_labels=KEYPOINTS, use_simple_decoder=False)  # type: ignore[call-arg]


def conv_vit_config(params: "PoseEncoderParams", image_size: int) -> ConvVitConfig:
    """The configuration of the small encoder that the params describe.

    Raises:
        PoseRftError: the section has no `conv_vit` sizes.
    """
    if params.conv_vit is None:
        raise PoseRftError("`pose_encoder.conv_vit` is missing, expected its width, layers and heads.")
    sizes = params.conv_vit
    return ConvVitConfig(image_size=image_size, width=sizes.width, layers=sizes.layers, heads=sizes.heads)


def policy_config(
    llava: PretrainedConfig,
    pose_encoder: PretrainedConfig | None,
    params: "PolicyParams",
    head: HeadKind,
    **tokens: Any,
) -> PoseLlavaConfig:
    """The configuration of a policy around a LLaVA and a pose encoder.

    Args:
        tokens: pose_token_id, end_token_id, suppressed_token_ids.
    """
    return PoseLlavaConfig(
        llava=llava,
        pose_encoder=pose_encoder,
        fusion=params.fusion,
        pose_head=head,
        covariance=params.covariance,
        covariance_rank=params.covariance_rank,
        log_std_min=params.log_std.min,
        log_std_max=params.log_std.max,
        log_std_init=params.log_std.init,
        mean_scale=params.mean_scale,
        pose_prior=params.pose_prior,
        inner_width=params.inner_width,
        shortcuts=params.shortcuts,
        **tokens,
    )


def planned_config(
    base: "BaseModelParams",
    encoder: "PoseEncoderParams",
    policy: "PolicyParams",
    image_size: int,
    pose_size: int,
    rows: int,
    head: HeadKind = "gaussian",
) -> PoseLlavaConfig:
    """The policy that a preset describes; rows: number of vocabulary rows, if its base is tiny.

    Raises:
        PoseRftError: the preset names a model whose sizes are not known here.
    """
    if base.is_made_here:
        sizes = base.sizes()
        smollm2 = llama_config(SMOLLM2, tie_word_embeddings=True)
        text = smollm2 if sizes.language is None else tiny_text_config(sizes.language, rows)
        llava = small_llava_config(sizes.vision, image_size, text)
    else:
        llava = llava_config(base.source)
    beside = None if policy.fusion == "clip_only" else pose_encoder_config(encoder, pose_size)
    return policy_config(llava, beside, policy, head)


def _of_folder(source: str, key: str, listed: dict[str, Any]) -> Any:
    if not (Path(source) / CONFIG).is_file():
        raise PoseRftError(
            f"The sizes of {key} {source} are not known, expected one of {', '.join(listed)}, or a folder with "
            "config.json."
        )
    check_sizes(read_config(Path(source) / CONFIG), source)
    with one_sentence(source, "configuration"):
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
