"""presets/paper.yaml itself: releases on disk to the report, tiny checkpoints in the hub's formats, LoRA on."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.random_checkpoints import save_bge_m3, save_llava, save_vitpose
from tests.pipeline.conftest import new_project

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


def test_the_paper_preset_runs_on_releases_and_hub_checkpoints(tmp_path):
    project = new_project(tmp_path / "paper", preset="paper")
    maker = new_project(tmp_path / "micro")
    maker.repro("sample")  # the releases alone; what the preset `micro` trains is none of this test's business
    sample = maker.root / "data/sample"
    vocabulary = json.loads((sample / "tokenizer/tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(word for word in vocabulary if not re.fullmatch(r"<.*>", word))
    weights = tmp_path / "weights"
    bge = str(save_bge_m3(weights / "bge-m3", words))
    # What a user with these releases and small hardware would set; every other line is the preset's own.
    project.set_params(
        **{
            "data.root": str(sample / "releases"),
            "data.body_model": str(sample / "body_models"),
            "datasets.coco.year": 2017,
            "datasets.bedlam.smallest_box": 20.0,
            "datasets.llava_instruct.heldout_percent": 20.0,
            "validate.strict": False,  # a miniature lacks most of what was published
            "shards.workers": 1,
            "shards.executor": "serial",
            "base_model.source": str(save_llava(weights / "llava", words)),
            "pose_encoder.checkpoint": str(save_vitpose(weights / "vitpose")),
            "sft.steps": 2,
            "sft.batch": 10,
            "sft.heldout.samples": 4,
            "retrieval.reward.sentence.model": bge,
            "retrieval.reward.pretrain": {"steps": 3, "batch": 8, "learning_rate": 2.0e-4},
            "retrieval.reward.finetune": {"steps": 2, "batch": 8, "learning_rate": 2.0e-4},
            "retrieval.judge.pretrain": {"steps": 3, "batch": 8, "learning_rate": 2.0e-4},
            "retrieval.judge.finetune": {"steps": 2, "batch": 8, "learning_rate": 2.0e-4},
            "rft.steps": 2,
            "rft.batch": 4,
            "rft.heldout.samples": 2,
            "rft.fixed_sentences": 2,
            "rft.rewards.sentence_encoder": bge,
            "evaluate.image_samples": 8,
            "evaluate.vqa_samples": 4,
            "evaluate.batch": 4,
            "evaluate.sentence_encoder": bge,
        }
    )
    project.repro()
    summary = json.loads((project.root / "metrics/summary.json").read_text())
    assert summary["pose_error"]["3dpw"]["rft_hygrpo"]["mpjpe"] > 0
    config = json.loads((project.root / "models/rft_hygrpo/config.json").read_text())
    assert config["model_type"] == "pose_llava" and config["pose_encoder"]["model_type"] == "vitpose"
    models = project.root / "models"
    sft, rft = (load_file(models / run / "adapters.safetensors") for run in ("sft_gaussian", "rft_hygrpo"))
    assert all(torch.equal(rft[name], value) for name, value in sft.items() if "lora_" in name), "SFT's stay"
    assert any(value.abs().max() > 0 for name, value in rft.items() if name not in sft and "lora_B" in name)
    log = [json.loads(line) for line in (project.root / "results/rft_hygrpo/log.jsonl").read_text().splitlines()]
    assert log[0]["kl"] == 0 and log[0]["pose/kl"] == 0
