"""A tokenizer, an encoder and tiny policies for tests."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pose_rft.policy import templates
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.hub import Base, create_policy
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import PolicyParams, PoseEncoderParams
from pose_rft.policy.pose_encoder import ConvVit, create_conv_vit
from pose_rft.policy.processor import ImageParams, PoseProcessor

IMAGE = ImageParams(size=32, pose_size=32, box_scale=1.25)
BASE = {
    "source": "tiny",
    "dtype": "float32",
    "tiny": {
        "vision": {"width": 16, "layers": 2, "heads": 2, "patch": 16},
        "language": {"width": 32, "layers": 2, "heads": 2},
    },
}
POLICY = {
    "fusion": "add",
    "covariance": "diagonal",
    "covariance_rank": 2,
    "log_std": {"min": -5.0, "max": -0.5, "init": -2.0},
    "mean_scale": 0.3,
}


def word_tokenizer() -> PreTrainedTokenizerBase:
    """Word level with Llama's markers, over the templates' words."""
    texts = [*templates.IMAGE_QUESTIONS, *templates.TEXT_QUESTIONS, *templates.IMAGE_TEXT_QUESTIONS, templates.ANSWER]
    split = pre_tokenizers.Whitespace()
    texts += ["USER : ASSISTANT", "he stands with both arms raised and the left knee bent", "a red shirt yes no two"]
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", "<image>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )


def tiny_encoder() -> ConvVit:
    params = {"kind": "conv_vit", "conv_vit": {"width": 8, "layers": 1, "heads": 2}}
    torch.manual_seed(1)
    return create_conv_vit(PoseEncoderParams.model_validate(params), IMAGE.pose_size).eval()


def tiny_policy(
    base: Base, head: str = "gaussian", stirred: bool = True, **changes: object
) -> tuple[PoseLlava, PoseProcessor]:
    """An untuned policy; `stirred` gives every weight noise, so that no zero hides a mistake."""
    params = PolicyParams.model_validate(POLICY | changes)
    model, processor = create_policy(base, tiny_encoder(), params, IMAGE, head)  # type: ignore[arg-type]
    if stirred:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                scale = 0.3 if "embed_tokens" in name or "lm_head" in name else 0.05
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model.eval(), processor


def random_crops(processor: PoseProcessor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """pixel_values and pose_pixel_values of n noise pictures."""
    rng = np.random.default_rng(3)
    pairs = [processor.crop(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8), None) for _ in range(n)]
    return torch.stack([clip for clip, _ in pairs]), torch.stack([pose for _, pose in pairs])


def image_tokens_of(model: PoseLlava, processor: PoseProcessor, n: int) -> ImageTokens | None:
    """Tokens of n noise pictures, None for 0."""
    return model.encode_images(*random_crops(processor, n)) if n else None
