"""Small stand-ins for shards, templates and a body, so that examples can be tested without a data set or a model."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pose_rft.batches.samples import Samples, load_samples
from pose_rft.body.joints import SMPL24
from pose_rft.policy import templates
from pose_rft.policy.hub import create_base, create_policy
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import BaseModelParams, PolicyParams, PoseEncoderParams
from pose_rft.policy.pose_encoder import create_conv_vit
from pose_rft.policy.processor import ImageParams, PoseProcessor
from pose_rft.record import Box, Caption, Image, Record, Smpl, Turn


class FakeShards:
    """What `load_samples` and image reading use of a ShardSet."""

    def __init__(self, records: list[Record], fingerprint: str) -> None:
        self.records, self.fingerprint = records, fingerprint * 8

    def __len__(self) -> int:
        return len(self.records)

    def record(self, i: int) -> Record:
        return self.records[i]


class Templates:
    image_questions = ("What is the pose?", "Show the pose of this person.")
    text_questions = ("Show this pose: {caption}", "{caption} Which pose is this?")
    image_text_questions = ("The person: {caption} What is the pose?",)
    ANSWER = "The SMPL pose of this person is <POSE>."


class Chain:
    """A body whose joints follow the tree with bones of 10 cm along y, left ones also along +x, right ones along -x."""

    def __init__(self) -> None:
        side = [1.0 if "left" in name else -1.0 if "right" in name else 0.0 for name in SMPL24.joints]
        self.bones = torch.tensor([[0.1 * s, 0.1, 0.0] for s in side])

    def joints(self, rotations: torch.Tensor) -> torch.Tensor:
        turns, places = [rotations[..., 0, :, :]], [torch.zeros_like(rotations[..., 0, :, 0])]
        for joint, parent in enumerate(SMPL24.parents[1:], start=1):
            places.append(places[parent] + turns[parent] @ self.bones[joint])
            turns.append(turns[parent] @ rotations[..., joint, :, :])
        return torch.stack(places, -2)


def picture(seed: int, size: tuple[int, int] = (48, 64)) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).resize((size[1], size[0])).save(buffer, "PNG")
    return Image(buffer.getvalue(), "png", size[1], size[0])


def record(i: int, dataset: str = "coco", frame: str = "camera", **fields: object) -> Record:
    rng = np.random.default_rng(i)
    valid = np.ones(24, bool)
    valid[22:] = dataset != "posescript"
    smpl = Smpl(
        global_orient=rng.normal(0, 0.5, 3),
        body_pose=rng.normal(0, 0.3, (23, 3)),
        betas=np.zeros(10),
        transl=np.zeros(3),
        valid=valid,
        gender="neutral",
        body_model="smpl",
        frame=frame,  # type: ignore[arg-type]
        source="test",
    )
    common = {"smpl": smpl, "split": "train", "key": f"{dataset}_{i}", "dataset": dataset}
    return Record(**(common | fields))  # type: ignore[arg-type]


def image_record(i: int, **fields: object) -> Record:
    return record(i, **({"image": picture(i), "box": Box((32.0, 24.0), 40.0, "test")} | fields))  # type: ignore[arg-type]


def text_record(i: int) -> Record:
    captions = (Caption(f"automatic words of {i}", "automatic"), Caption(f"human words of {i}", "human"))
    return record(i, "posescript", "amass", captions=captions)


def vqa_record(i: int) -> Record:
    dialogue = (
        Turn("human", f"Is it {i}?"),
        Turn("assistant", "Yes."),
        Turn("human", "Sure?"),
        Turn("assistant", "No."),
    )
    return image_record(i, dataset="llava_instruct", smpl=None, box=None, dialogue=dialogue)


def samples(name: str, records: list[Record], cache: Path) -> Samples:
    return load_samples(name, FakeShards(records, f"{name}-{len(records)}-".replace("/", "-")), cache)  # type: ignore[arg-type]


IMAGE = ImageParams(size=32, pose_size=32, box_scale=1.25)
POLICY = PolicyParams.model_validate(
    {
        "fusion": "add",
        "covariance": "diagonal",
        "covariance_rank": 2,
        "log_std": {"min": -5.0, "max": -0.5, "init": -2.0},
        "mean_scale": 0.3,
    }
)
BASE = BaseModelParams.model_validate(
    {
        "source": "tiny",
        "dtype": "float32",
        "tiny": {
            "vision": {"width": 16, "layers": 2, "heads": 2, "patch": 16},
            "language": {"width": 32, "layers": 2, "heads": 2},
        },
    }
)
ENCODER = PoseEncoderParams.model_validate({"kind": "conv_vit", "conv_vit": {"width": 8, "layers": 1, "heads": 2}})
WORDS = "automatic human words of Is it Sure ? Yes No . arms up USER : ASSISTANT , to a"


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Word level with Llama's markers, over the words of the templates and of the records above."""
    texts = [*templates.IMAGE_QUESTIONS, *templates.TEXT_QUESTIONS, *templates.IMAGE_TEXT_QUESTIONS, templates.ANSWER]
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in [*texts, WORDS] for word, _ in split.pre_tokenize_str(text)})
    words += [str(i) for i in range(10)]
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", "<image>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<image>"], **special)


def tiny_policy(
    folder: Path, head: str = "gaussian", seed: int = 0, **changes: object
) -> tuple[PoseLlava, PoseProcessor]:
    """A policy of a few thousand weights, its heads stirred so that no loss starts at a symmetric point."""
    word_tokenizer().save_pretrained(folder / "tokenizer")
    base = create_base(BASE, IMAGE, folder / "tokenizer", seed)
    torch.manual_seed(seed)
    encoder = create_conv_vit(ENCODER, IMAGE.pose_size).eval()
    policy = POLICY.model_copy(update=changes)
    model, processor = create_policy(base, encoder, policy, IMAGE, head, seed=seed)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.pose_head.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model, processor
