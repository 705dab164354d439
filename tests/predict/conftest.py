"""A policy of a few thousand weights on disk, which always answers with the template."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pose_rft.inference import passes
from pose_rft.inference.sampling import Completions
from pose_rft.policy.hub import create_base
from pose_rft.policy.params import BaseModelParams
from pose_rft.predict.predictor import Predictor
from tests.support.tiny_policies import BASE, IMAGE, tiny_policy, word_tokenizer


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    word_tokenizer().save_pretrained(folder / "words")
    model, processor = tiny_policy(create_base(BaseModelParams.model_validate(BASE), IMAGE, folder / "words"))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def answering(monkeypatch) -> None:
    """Untrained words are noise: the answer is the template's, its pose the policy's own."""

    def template(model, prompts, *_, **__):
        ids = [list(answering_ids[0])] * 1
        return Completions.from_lists([ids for _ in prompts], model.config.end_token_id)

    answering_ids: list[tuple[int, ...]] = []
    original = Predictor.__init__

    def remember(self, *arguments, **named):
        original(self, *arguments, **named)
        answering_ids[:] = [self.processor.answer_ids]

    monkeypatch.setattr(Predictor, "__init__", remember)
    monkeypatch.setattr(passes, "generate", template)


@pytest.fixture
def picture() -> np.ndarray:
    """(90, 120, 3): smooth, and unlike itself when turned or mirrored."""
    y, x = np.mgrid[:90, :120]
    return np.stack([2 * x, 2 * y, (x + y) // 2], -1).astype(np.uint8)
