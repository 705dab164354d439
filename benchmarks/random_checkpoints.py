"""Random checkpoints in the hub's formats: same classes, files and key names as those that the preset `paper` names.

`TINY` for tests, `PAPER` with the sizes of LLaVA-1.5-7B, ViTPose+ huge and BGE-M3, for a rehearsal that downloads
nothing. Tokenizers know only the words that they are given, whatever the size of the embedding matrices.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from pose_rft.policy.architectures import LLAVA, Llama, llama_config, pose_encoder_config
from pose_rft.policy.params import PoseEncoderParams

# llava-hf/llava-1.5-7b-hf was saved before transformers nested the models; current versions rename on loading.
OLD_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)


class Sizes(NamedTuple):
    """Sizes of the language model, CLIP's tower (336 px, patches of 14), ViTPose (256 x 192) and the sentence encoder;
    `rows` 0: as many as there are words. dtype: of the LLaVA."""

    language: Llama
    clip: Llama
    vitpose: Callable[[], Any]
    sentences: Llama
    dtype: torch.dtype


def tiny_vitpose() -> VitPoseConfig:
    """Two layers of width 32."""
    backbone = VitPoseBackboneConfig(  # type: ignore[call-arg]
        image_size=[256, 192],
        patch_size=[16, 16],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
    )
    return VitPoseConfig(backbone_config=backbone, num_labels=17)  # type: ignore[call-arg]


def huge_vitpose() -> Any:
    """usyd-community/vitpose-plus-huge."""
    named = PoseEncoderParams(kind="vitpose", checkpoint="usyd-community/vitpose-plus-huge")
    return pose_encoder_config(named, 256)


SMALL = Llama(32, 64, 2, 2, 0)
LARGE = Llama(1024, 4096, 24, 16, 0)  # sizes of both CLIP ViT-L/14 and XLM-RoBERTa large
TINY = Sizes(SMALL, SMALL._replace(layers=3), tiny_vitpose, SMALL, torch.float32)
PAPER = Sizes(LLAVA["llava-hf/llava-1.5-7b-hf"], LARGE, huge_vitpose, LARGE, torch.bfloat16)


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token per word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*specials, *words])}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )


def save_llava(folder: Path, words: list[str], sizes: Sizes = TINY, device: str = "cpu") -> Path:
    """Saves a LLaVA like llava-hf/llava-1.5-7b-hf: 336 px, patches of 14, `<image>` known, no `<POSE>`, padded rows.

    Tiny ones use the old key names of the hub's file.
    """
    folder.mkdir(parents=True)
    tokenizer = word_tokenizer(words)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    rows = sizes.language.rows or -(-(len(tokenizer) + 1) // 64) * 64
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    clip = sizes.clip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=clip.width,
            intermediate_size=clip.inner,
            num_hidden_layers=clip.layers,
            num_attention_heads=clip.heads,
            image_size=336,
            patch_size=14,
        ),
        text_config=llama_config(sizes.language._replace(rows=rows), max_position_embeddings=4096, **special),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(sizes.dtype)
    try:
        with torch.device(device):
            model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    if sizes == TINY:
        weights = {}
        for name, weight in model.state_dict().items():
            old, new = next(pair for pair in OLD_NAMES if name.startswith(pair[0]))
            weights[new + name.removeprefix(old)] = weight.clone()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    return folder


def save_vitpose(folder: Path, sizes: Sizes = TINY) -> Path:
    """Saves a model like usyd-community/vitpose-*: VitPoseForPoseEstimation, 256 x 192, 17 COCO joints."""
    torch.manual_seed(1)
    VitPoseForPoseEstimation(sizes.vitpose()).save_pretrained(folder)
    return folder


def save_bge_m3(folder: Path, words: list[str], sizes: Sizes = TINY) -> Path:
    """Saves a model like BAAI/bge-m3 in sentence-transformers' format: XLM-RoBERTa, class-token pooling, normalised."""
    from sentence_transformers import SentenceTransformer, models

    tokenizer = word_tokenizer(words)
    tokenizer.model_max_length = 128
    sentences = sizes.sentences
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sentences.width,
        intermediate_size=sentences.inner,
        num_hidden_layers=sentences.layers,
        num_attention_heads=sentences.heads,
        max_position_embeddings=160,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(2)
    inner = folder.with_name(folder.name + "_transformer")
    XLMRobertaModel(config).save_pretrained(inner)
    tokenizer.save_pretrained(inner)
    transformer = models.Transformer(str(inner), max_seq_length=128)
    pooling = models.Pooling(sentences.width, "cls")
    SentenceTransformer(modules=[transformer, pooling, models.Normalize()], device="cpu").save(str(folder))
    return folder
