"""A policy of a few thousand weights on disk, which always answers with the template."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pose_rft.inference import passes
from pose_rft.inference.sampling import Completions
from pose_rft.io import video
from pose_rft.policy.hub import create_base
from pose_rft.policy.params import BaseModelParams
from pose_rft.predict.command import Request, Run, check
from pose_rft.predict.prediction import Seen
from pose_rft.predict.predictor import Predictor
from pose_rft.predict.regions import Region
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


@pytest.fixture
def start(tmp_path, policy_folder, tiny_folder, answering):
    """Predicts into `out`; returns (went well, the lines there)."""

    def go(paths=(), sentences=(), box="20,10,60,60", stdin=(), **choices):
        box = None if choices.get("boxes") else box
        asked = Request([str(path) for path in paths], list(sentences), tmp_path / "out", box, **choices)
        well = Run(check(asked, stdin), policy_folder, tiny_folder)()
        return well, lines(tmp_path / "out")

    return go


@pytest.fixture
def seeing(monkeypatch):
    """Two people in every picture, the second of whom is surer."""
    regions = Region((30, 40), 50), Region((90, 40), 40)
    found = [Seen(region, "detector", score) for region, score in zip(regions, (0.6, 0.9), strict=True)]
    monkeypatch.setattr(Predictor, "everyone", lambda self, photograph: found)


def lines(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def save(path, picture):
    ok, data = cv2.imencode(".png", picture)
    assert ok
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.tobytes())
    return path


@pytest.fixture
def film_file(tmp_path, picture):
    """12 frames, 10 a second."""
    video.encode(tmp_path / "film.mp4", [np.roll(picture, 3 * i, 1) for i in range(12)], 10, "h264")
    return tmp_path / "film.mp4"
