"""A tokenizer, crops and tiny policies for the tests of the policy."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pose_rft.policy import templates
from pose_rft.policy.config import BaseModelParams, PolicyParams
from pose_rft.policy.hub import Base, create_base, create_policy
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.pose_encoder import ConvVit, PoseEncoderParams, create_conv_vit
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


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def base(tokenizer_folder: Path) -> Base:
    return create_base(BaseModelParams.model_validate(BASE), IMAGE, tokenizer_folder)


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


@pytest.fixture
def policy(base: Base) -> tuple[PoseLlava, PoseProcessor]:
    return tiny_policy(base)
