"""A trainer of a tiny policy: judges made of arithmetic, and rollouts that say what a test wants."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pose_rft.batches.examples import ExampleStream
from pose_rft.batches.feature_cache import EncodedTokens
from pose_rft.hygrpo.params import RFTParams, Variant
from pose_rft.hygrpo.reference import ReferencePolicy
from pose_rft.hygrpo.trainer import Trainer, TrainerComponents
from pose_rft.inference.passes import Preparer, scoring
from pose_rft.inference.rewards import RewardParams, Rewards
from pose_rft.inference.sampling import Completions
from pose_rft.inference.types import Prompts
from pose_rft.policy.lora import add_lora, trainable_parameters
from pose_rft.record import Caption
from pose_rft.training.engine import Engine
from tests.support.training_fakes import IMAGE, Chain, image_record, samples, text_record, tiny_policy, vqa_record

MIXTURE = {
    "image_pose": {"coco": 0.4},
    "text_pose": {"posescript": 0.3},
    "image_text_pose": {"bedlam": 0.1},
    "vqa": {"llava_instruct": 0.2},
}
REWARDS: dict[str, Any] = {"sentence_encoder": "unused"}
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}


def rft_params(**changes: object) -> RFTParams:
    content = {
        "steps": 4,
        "batch": 4,
        "group_size": 3,
        "poses_per_answer": 2,
        "engine": {"lr": 3e-3},
        "examples": {"mixture": MIXTURE},
        "max_new_tokens": 14,
        "rewards": REWARDS,
        "cache_tokens": False,
        "save_every": 2,
        "heldout": {"samples": 4, "image_pose": {}, "text_pose": {}},
        "heldout_every": 2,
        "table_every": 2,
        "fixed_sentences": 2,
    }
    return RFTParams.model_validate(content | changes)


def _vector(text: str, width: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return torch.nn.functional.normalize(torch.randn(width, generator=torch.Generator().manual_seed(seed)), dim=0)


class FakeRetrieval:
    """Random but fixed embeddings: of texts by their words, of poses by a fixed linear map."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.map = torch.randn(24 * 9, 8, generator=torch.Generator().manual_seed(0))
        self.read: list[str] = []

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        self.read += texts
        return torch.stack([_vector(text, 8) for text in texts])

    def embed_pose(self, rotations: Tensor) -> Tensor:
        return self.encode_pose(rotations)

    def encode_pose(self, rotations: Tensor) -> Tensor:
        return torch.nn.functional.normalize(rotations.flatten(1) @ self.map, dim=1)


class FakeSentences:
    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([_vector(text, 8) for text in texts])


def fake_rewards(processor: Any, **changes: Any) -> Rewards:
    params = RewardParams.model_validate(REWARDS | changes)
    return Rewards(Chain(), FakeRetrieval(), FakeSentences(), processor, params)  # type: ignore[arg-type]


class Scripted:
    """A rollout that answers from a list, whatever the policy thinks: candidate j of every prompt says answer j."""

    def __init__(self, processor: Any, answers: Sequence[Sequence[int]]) -> None:
        self.answers, self.end = [list(answer) for answer in answers], processor.eos_token_id

    def __call__(self, model: Any, prompts: Prompts, generator: object) -> Completions:
        return Completions.from_lists([self.answers for _ in prompts.ids], self.end)


def three_answers(processor: Any) -> list[list[int]]:
    """The template, the template with a needless word (one pose, wrong format), and words without a pose."""
    template = list(processor.answer_ids)
    return [template, [template[0], *template], [*processor.sentence_ids("Yes ."), processor.eos_token_id]]


def make_trainer(
    folder: Path,
    params: RFTParams | None = None,
    variant: Variant = "hygrpo",
    policy: dict[str, object] | None = None,
    **tools: Any,
) -> tuple[Trainer, Any]:
    """A trainer on a tiny policy and its processor; `tools` replaces parts (rollout, score, rewards, before, after)."""
    params = params or rft_params()
    caption = (Caption("arms up", "automatic"),)
    content = {
        "coco": [image_record(i) for i in range(8)],
        "bedlam": [image_record(i, dataset="bedlam", captions=caption) for i in range(8, 11)],
        "posescript": [text_record(i) for i in range(5)],
        "llava_instruct": [vqa_record(i) for i in range(4)],
    }
    sets = {name: samples(f"{name}/train", records, folder / "samples") for name, records in content.items()}
    model, processor = tiny_policy(folder, **(policy or {}))  # type: ignore[arg-type]
    if params.lora is not None:
        add_lora(model, params.lora)
    trainable_parameters(model, "full" if params.lora is None else "lora")
    reference = ReferencePolicy(model)
    engine = Engine(model, params.engine, params.steps)
    tokens = EncodedTokens(model, IMAGE, {s.name: s for s in sets.values()})
    stream = ExampleStream(sets, params.examples, processor, Chain(), 0)  # type: ignore[arg-type]
    parts: dict[str, Any] = {
        "draw": stream.draw,
        "prepare": Preparer(processor, tokens, engine.device),
        "rollout": Scripted(processor, three_answers(processor)),
        "score": scoring(params.temperature),
        "rewards": fake_rewards(processor),
    }
    return Trainer(engine, reference, TrainerComponents(**(parts | tools)), params, variant, seed=0), processor
