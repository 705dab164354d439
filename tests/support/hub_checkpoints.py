"""Tiny checkpoints in the hub's formats: the same classes, files and key names as the ones that `paper` names."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    XLMRobertaConfig,
    XLMRobertaModel,
)

# llava-hf/llava-1.5-7b-hf was saved before transformers nested the models; current ones rename on loading.
OLD_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
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


def save_llava(folder: Path, words: list[str]) -> Path:
    """Like llava-hf/llava-1.5-7b-hf: 336 px in patches of 14, `<image>` known, no `<POSE>`, padded rows."""
    folder.mkdir(parents=True)
    tokenizer = word_tokenizer(words)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    rows = -(-(len(tokenizer) + 1) // 64) * 64
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=rows,
            max_position_embeddings=4096,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.save_pretrained(folder)
    weights = {}
    for name, weight in model.state_dict().items():
        old, new = next(pair for pair in OLD_NAMES if name.startswith(pair[0]))
        weights[new + name.removeprefix(old)] = weight.clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    return folder


def save_vitpose(folder: Path) -> Path:
    """Like usyd-community/vitpose-*: VitPoseForPoseEstimation, 256 x 192, 17 COCO joints."""
    backbone = VitPoseBackboneConfig(
        image_size=[256, 192],
        patch_size=[16, 16],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
    )
    torch.manual_seed(1)
    VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17)).save_pretrained(folder)
    return folder


def save_bge_m3(folder: Path, words: list[str]) -> Path:
    """Like BAAI/bge-m3 in sentence-transformers' format: XLM-RoBERTa, class token, normalised."""
    from sentence_transformers import SentenceTransformer, models

    tokenizer = word_tokenizer(words)
    tokenizer.model_max_length = 128
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=160,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(2)
    inner = folder.with_name(folder.name + "_transformer")
    XLMRobertaModel(config).save_pretrained(inner)
    tokenizer.save_pretrained(inner)
    transformer = models.Transformer(str(inner), max_seq_length=128)
    SentenceTransformer(modules=[transformer, models.Pooling(32, "cls"), models.Normalize()], device="cpu").save(
        str(folder)
    )
    return folder
