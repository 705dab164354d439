"""Sources of weights: a LLaVA built here, LLaVA-1.5 from the hub, ViTPose, HMR2.0 and TokenHMR checkpoints.

Every loader is strict: if names do not match, transformers prints a report and continues with random weights; here that
is an error that lists them. `models/base` is a LLaVA folder in the hub's own format, so the tiny base and
`llava-hf/llava-1.5-7b-hf` share one code path; `create_policy` adds encoder, fusion and head.
"""

import copy
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AddedToken,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)

from pose_rft import seeds
from pose_rft.errors import PoseRftError
from pose_rft.io.checkpoints import read_checkpoint
from pose_rft.io.model_folder import check_promise, check_words, look_at, one_sentence
from pose_rft.policy import smollm
from pose_rft.policy.architectures import policy_config, small_llava_config, tiny_text_config
from pose_rft.policy.config import HeadKind, Hmr2VitConfig
from pose_rft.policy.encoder_kinds import KINDS
from pose_rft.policy.model import PoseLlava, check_loaded
from pose_rft.policy.params import BaseModelParams, PolicyParams, PoseEncoderParams
from pose_rft.policy.pose_encoder import Hmr2Vit, PoseEncoder, VitPoseEncoder
from pose_rft.policy.processor import ImageParams, PoseProcessor, add_pose_token, read_tokenizer, token_id
from pose_rft.policy.room import check_room
from pose_rft.policy.templates import IMAGE_TOKEN, POSE_TOKEN, form_of

ROWS = 64
"""Vocabulary matrices are padded to a multiple of this, as the hub's are; `<POSE>` takes a free row."""


class Base(NamedTuple):
    """A LLaVA and its tokenizer, which includes `<POSE>`."""

    llava: LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase

    def save(self, folder: Path) -> None:
        """Writes both in the hub's format."""
        self.llava.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def create_base(
    params: BaseModelParams,
    image: ImageParams,
    tokenizer_folder: Path | None = None,
    seed: int = 0,
    clip_vision: CLIPVisionModel | None = None,
) -> Base:
    """Builds or loads the LLaVA that `base_model` describes, before fine-tuning.

    Args:
        tokenizer_folder: the sample's tokenizer, for `tiny`.
        clip_vision: a trained tower of `clip_vision_config`, if the LLaVA is built here; default: fresh weights.
    Raises:
        PoseRftError: sizes, tokenizer or weights are missing, a checkpoint does not match, or memory is insufficient.
    """
    if not params.is_made_here:
        return load_base(params.source, params.dtype)
    sizes, tokenizer = params.sizes(), base_tokenizer(params, tokenizer_folder)
    rows = math.ceil(len(tokenizer) / ROWS) * ROWS
    language = None
    if sizes.language is None:
        language = smollm.load_language(rows)
        text = language.config
    else:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        text = tiny_text_config(sizes.language, rows, **ids)
    config = small_llava_config(sizes.vision, image.size, text, token_id(tokenizer, IMAGE_TOKEN))
    check_room(lambda: LlavaForConditionalGeneration(copy.deepcopy(config)), "base_model.tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "base_model"))
        llava = LlavaForConditionalGeneration(config)
    if language is not None:
        llava.model.language_model.load_state_dict(language.model.state_dict())  # lm_head is tied to its embeddings
    # This projector is untrained, unlike LLaVA's: zeros keep CLIP's tokens from adding noise to the pose encoder's.
    torch.nn.init.zeros_(llava.model.multi_modal_projector.linear_2.weight)
    torch.nn.init.zeros_(llava.model.multi_modal_projector.linear_2.bias)
    if clip_vision is not None:
        llava.model.vision_tower.load_state_dict(clip_vision.state_dict())
    return Base(llava.to(getattr(torch, params.dtype)), tokenizer)


def base_tokenizer(params: BaseModelParams, folder: Path | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a LLaVA built here, with `<image>` and `<POSE>`; folder: the sample's tokenizer, for `tiny`.

    Raises:
        PoseRftError: there is none.
    """
    if params.source != "tiny":
        tokenizer = _with_image_token(smollm.load_tokenizer())
    elif folder is not None:
        tokenizer = load_tokenizer(folder)
    else:
        raise PoseRftError("base_model.source is tiny, expected the sample's tokenizer.")
    add_pose_token(tokenizer)
    return tokenizer


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Loads a tokenizer, adding `<image>` if it lacks it.

    Raises:
        PoseRftError: there is none.
    """
    return _with_image_token(read_tokenizer(source))


def _with_image_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    return tokenizer


def load_base(source: str | Path, dtype: str = "float32") -> Base:
    """Loads a LLaVA checkpoint (hub id or folder) and puts `<POSE>` into a free row of its vocabulary.

    A new row starts as the mean of the others. The matrices grow only when no padding row is free; they never shrink
    (llava-hf pads 32,003 tokens to 32,064 rows, and resizing to the tokenizer's length would cut them).

    Args:
        dtype: name of a torch dtype, or `auto` for the saved one.
    Raises:
        PoseRftError: there is no checkpoint, it is of another kind, or weights are damaged, missing, unexpected, or of
            another shape.
    """
    wanted = "LLaVA checkpoint"
    folder, config = look_at(source, wanted)
    if config.get("model_type") != LlavaConfig.model_type or not all(
        isinstance(config.get(part), dict) for part in ("text_config", "vision_config")
    ):
        kind = (config.get("architectures") or [config.get("model_type")])[0]
        raise PoseRftError(
            f"base_model.source {source} holds a {kind}, expected LlavaForConditionalGeneration in the hub's format "
            "(as llava-hf/llava-1.5-7b-hf is), not LLaVA's original format or a language model alone."
        )
    with one_sentence(source, wanted):
        check_promise(LlavaConfig.from_dict(config).to_dict(), folder)
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(
            source,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )
        llava, info = loaded
        check_loaded(info, str(source))
    tokenizer = load_tokenizer(source)
    known = len(tokenizer)
    pose = add_pose_token(tokenizer)
    if len(tokenizer) > llava.get_input_embeddings().weight.shape[0]:
        llava.resize_token_embeddings(math.ceil(len(tokenizer) / ROWS) * ROWS, mean_resizing=False)
    if len(tokenizer) > known:
        with torch.no_grad():
            for weight in (llava.get_input_embeddings().weight, llava.get_output_embeddings().weight):
                weight[pose] = weight[:known].float().mean(0).to(weight.dtype)
    return Base(llava, tokenizer)


# --- pose encoders


def import_pose_encoder(params: PoseEncoderParams) -> PoseEncoder:
    """Loads the released encoder that `pose_encoder.checkpoint` names (`vitpose` or `hmr2`).

    Raises:
        PoseRftError: no checkpoint is named, or it does not match.
    """
    if params.checkpoint is None:
        raise PoseRftError(f"`pose_encoder.checkpoint` is missing, expected the weights of a {params.kind} encoder.")
    return load_vitpose(params.checkpoint) if params.kind == "vitpose" else load_hmr2(Path(params.checkpoint))


def load_vitpose(source: str | Path) -> VitPoseEncoder:
    """Loads ViTPose in the hub's format. (Its backbone class alone would load such a checkpoint as random weights.)

    Raises:
        PoseRftError: there is no checkpoint, it is of another kind, or its weights do not match.
    """
    wanted = "ViTPose checkpoint"
    _, config = look_at(source, wanted)
    if config.get("model_type") != VitPoseConfig.model_type:
        raise PoseRftError(
            f"{source} holds a model of type {config.get('model_type')!r}, expected a {wanted} "
            "(VitPoseForPoseEstimation, as usyd-community/vitpose-plus-huge is)."
        )
    with one_sentence(source, wanted):
        loaded: Any = VitPoseForPoseEstimation.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
        )
        vitpose, info = loaded
        check_loaded(info, str(source))
    encoder = VitPoseEncoder(vitpose.config)
    encoder.vitpose = vitpose
    return encoder.eval()


class Inert:
    """Stands in for every non-tensor class in a checkpoint: constructing one returns a dict and runs no code."""

    def __new__(cls, *_: object, **__: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()  # the only mapping that torch's restricted unpickler lets a file fill


HMR2_PREFIX = "backbone."
HMR2_HEADS = 16


def load_hmr2(path: Path) -> Hmr2Vit:
    """Loads the ViT of an HMR2.0 or TokenHMR Lightning checkpoint; infers sizes from the weights, heads are ViT-H's 16.

    Raises:
        PoseRftError: the file is missing or not a checkpoint, or its weights do not match.
    """
    wanted = "HMR2.0 or TokenHMR checkpoint"
    content = read_checkpoint(path, f"a {wanted}", stand_in=Inert)
    with one_sentence(path, wanted):
        state = content.get("state_dict", {})
        weights = {key.removeprefix(HMR2_PREFIX): value for key, value in state.items() if key.startswith(HMR2_PREFIX)}
        if "pos_embed" not in weights or "patch_embed.proj.weight" not in weights:
            raise PoseRftError(f"{path} has no weights `{HMR2_PREFIX}pos_embed`, expected a {wanted}.")
        encoder = Hmr2Vit(_hmr2_config(weights))
        outcome = encoder.load_state_dict(weights, strict=False)
        check_loaded(
            {"missing_keys": outcome.missing_keys, "unexpected_keys": outcome.unexpected_keys, "mismatched_keys": []},
            str(path),
        )
        return encoder.eval()


def _hmr2_config(weights: dict[str, Tensor]) -> Hmr2VitConfig:
    patches, width = weights["pos_embed"].shape[1] - 1, weights["pos_embed"].shape[2]
    patch = weights["patch_embed.proj.weight"].shape[-1]
    rows = round(math.sqrt(patches * 4 / 3))  # height : width = 4 : 3
    layers = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    return Hmr2VitConfig(
        image_size=(rows * patch, patches // rows * patch),
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=HMR2_HEADS,
        mlp_ratio=weights["blocks.0.mlp.fc1.weight"].shape[0] // width,
    )


def load_pose_encoder(folder: Path) -> PoseEncoder:
    """Loads an encoder that `save_pretrained` wrote.

    Raises:
        PoseRftError: there is none, or its weights do not match.
    """
    wanted = "pose encoder"
    _, config = look_at(folder, wanted)
    kind = KINDS.get(str(config.get("model_type")))
    if kind is None:
        raise PoseRftError(
            f"{folder} holds no pose encoder but a model of type {config.get('model_type')!r}, expected one of "
            f"{', '.join(KINDS)}."
        )
    with one_sentence(folder, wanted):
        loaded: Any = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
        )
        encoder, info = loaded
        check_loaded(info, str(folder))
    return encoder.eval()


# --- the policy


def create_policy(
    base: Base,
    pose_encoder: PoseEncoder | None,
    params: PolicyParams,
    image: ImageParams,
    head: HeadKind,
    mean_pose: Tensor | None = None,
    seed: int = 0,
) -> tuple[PoseLlava, PoseProcessor]:
    """Builds a policy around a base: fresh projector W_b and pose head, everything else as given.

    Args:
        pose_encoder: None only for `clip_only`, which ignores a given one.
        mean_pose: (24, 6), predicted by the fresh head; default: identity rotations.
    Raises:
        PoseRftError: crop sizes and encoders do not match, or `pose_prior: encoder` has no encoder that reads poses.
    """
    llava: Any = base.llava
    tokenizer = base.tokenizer
    if params.fusion == "clip_only":
        pose_encoder = None
    _check_sizes(llava, pose_encoder, image)
    if params.pose_prior == "encoder" and (pose_encoder is None or not pose_encoder.reads_pose):
        raise PoseRftError("policy.pose_prior is encoder, but this encoder reads no pose; set mean, or use blazepose.")
    rows = llava.get_input_embeddings().weight.shape[0]
    suppressed = {token_id(tokenizer, IMAGE_TOKEN), *range(len(tokenizer), rows)}
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.unk_token_id):
        suppressed.add(tokenizer.pad_token_id)
    config = policy_config(  # copies: a new outer config resets the attention implementation of its parts
        copy.deepcopy(llava.config),
        None if pose_encoder is None else copy.deepcopy(pose_encoder.config),
        params,
        head,
        pose_token_id=token_id(tokenizer, POSE_TOKEN),
        end_token_id=tokenizer.eos_token_id,
        suppressed_token_ids=sorted(suppressed),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "policy"))
        model = PoseLlava(config, llava, pose_encoder)
    if mean_pose is not None:
        model.set_mean_pose(mean_pose)
    for part in (model.fusion, *model.towers()):  # the pose head stays in float32
        part.to(llava.dtype)
    return model, PoseProcessor(tokenizer, image, model.num_image_tokens, form_of(tokenizer.get_vocab()))


def _check_sizes(llava: Any, pose_encoder: PoseEncoder | None, image: ImageParams) -> None:
    wanted = llava.config.vision_config.image_size
    if image.size != wanted:
        raise PoseRftError(f"image.size is {image.size} px, but the base model's CLIP takes {wanted}; set it to that.")
    if pose_encoder is not None and image.pose_size != pose_encoder.image_size:
        raise PoseRftError(
            f"image.pose_size is {image.pose_size} px, but the pose encoder takes {pose_encoder.image_size}; "
            "set it to that."
        )


def load_policy(folder: Path) -> tuple[PoseLlava, PoseProcessor]:
    """Loads a policy folder: model (eval mode) and processor.

    Raises:
        PoseRftError: either is missing, or they do not match.
    """
    model, processor = PoseLlava.from_pretrained(folder).eval(), PoseProcessor.from_pretrained(folder)
    with one_sentence(folder, "policy"):
        _check_pair(model, processor, folder)
    return model, processor


def _check_pair(model: PoseLlava, processor: PoseProcessor, folder: Path) -> None:
    """Compares values stored in both files, one of which may be damaged or belong to another policy.

    Raises:
        PoseRftError: they differ.
    """
    words: Any = model.get_input_embeddings().weight
    rows: int = words.shape[0]
    check_words(processor.tokenizer, rows, folder)
    _check_sizes(model.llava, model.pose_encoder, processor.image)
    config: Any = model.config
    pairs = {
        "tokens of a picture": (processor.num_image_tokens, model.num_image_tokens),
        "<POSE>": (processor.pose_token_id, config.pose_token_id),
        "<image>": (processor.image_token_id, config.llava.image_token_index),
        "end of an answer": (processor.eos_token_id, config.end_token_id),
    }
    for what, (ours, its) in pairs.items():
        if ours != its:
            raise PoseRftError(
                f"{folder}: processor and model do not belong together ({what}: {ours} and {its}); "
                "copy the whole folder again."
            )
    if any(type(word) is not int or not 0 <= word < rows for word in config.suppressed_token_ids or ()):
        raise PoseRftError(f"{folder / 'config.json'} suppresses words that the model lacks; copy the folder again.")


def save_policy(folder: Path, model: PoseLlava, processor: PoseProcessor) -> None:
    """Saves model and processor into one folder."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
