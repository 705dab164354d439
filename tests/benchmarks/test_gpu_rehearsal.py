"""The rehearsal of the paper's configuration: what it changes of the preset, what it compares, its tiny form whole."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_rehearsal
from benchmarks.gpu_rehearsal import DATA, MODELS, Ran, compared, rehearsed, run_stage, step_seconds, table
from benchmarks.random_checkpoints import PAPER
from pose_rft.cost.plan import preset_path
from pose_rft.errors import PoseRftError
from pose_rft.hygrpo.params import RFTParams
from pose_rft.params import load, parse
from pose_rft.params_file import read_yaml
from pose_rft.training.sft import SFTParams
from tests.test_presets import ROOT, SECTIONS

BASE = read_yaml(preset_path("paper"))
# What a step costs: batches, adapters, precision, the engine, how many answers and how long.
COSTLY = {
    "sft": ("batch", "engine", "lora", "loss", "examples", "cache_tokens"),
    "rft": ("batch", "group_size", "poses_per_answer", "engine", "lora", "examples", "max_new_tokens", "cache_tokens"),
}


def test_the_rehearsal_keeps_all_that_sets_a_step_s_cost(tmp_path: Path) -> None:
    content = rehearsed(BASE, tmp_path / "weights", 20, tiny=False)
    for section, keys in COSTLY.items():
        assert {key: content[section][key] for key in keys} == {key: BASE[section][key] for key in keys}
    assert content["image"] == BASE["image"] and content["policy"] == BASE["policy"]
    assert content["sft"]["steps"] == content["rft"]["steps"] == 20 and content["base_model"]["dtype"] == "bfloat16"
    for name, kind in SECTIONS.items():
        parse(content[name], kind, name)
    assert (PAPER.language.width, PAPER.language.layers, PAPER.language.rows) == (4096, 32, 32064)


def test_a_stage_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError, match=r"inventory ended with 2: error: params\.yaml does not exist"):
        run_stage("inventory", tmp_path)


def test_steps_after_the_first_ones_count(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"seconds": s}) + "\n" for s in (60.0, 9.0, 1.0, 2.0, 3.0)))
    assert step_seconds(tmp_path / "log.jsonl") == 2.0


def test_what_was_seen_stands_beside_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # DeepSpeed, of an earlier test, has put a linear map that keeps more in its place for the whole process.
    monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)
    shutil.copy(preset_path("paper"), tmp_path / "params.yaml")
    for name in ("sft_gaussian", "rft_hygrpo"):
        (tmp_path / f"results/{name}").mkdir(parents=True)
        (tmp_path / f"results/{name}/log.jsonl").write_text(json.dumps({"seconds": 4.0}) + "\n")
    ran = {stage: Ran(100.0, 30 * gpu_rehearsal.GIB, 9 * gpu_rehearsal.GIB) for stage in (*DATA, *MODELS)}
    sft, rft = compared(tmp_path, ran)
    assert sft["step, s"] == rft["step, s"] == 4.0 and sft["GiB"] == 30.0
    assert sft["planned step, s"] == pytest.approx(3.5, abs=0.1) and sft["planned GiB"] == pytest.approx(20.1, abs=0.1)
    assert rft["planned step, s"] == pytest.approx(7.7, abs=0.1) and rft["planned GiB"] == pytest.approx(21.4, abs=0.1)
    shown = table([sft, rft], ran)
    assert "| rft | " in shown and "| evaluate --run rft_hygrpo | 100 | 30.0 | 9.0 |" in shown
    assert load("sft", SFTParams, tmp_path / "params.yaml").batch == 80
    assert load("rft", RFTParams, tmp_path / "params.yaml").group_size == 8


@pytest.mark.slow
@pytest.mark.pipeline
def test_everything_that_waits_for_a_gpu_runs_in_its_tiny_form(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    for name in ("pose_rft", "stages", "flows", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    command = [str(tmp_path / "benchmarks/on_gpu.sh"), "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| shared | 8 |" in done.stdout and "| rft | " in done.stdout
    results = tmp_path / ".scratch/on_gpu/rehearsal/results"
    metrics = json.loads((results / "evaluate_rft_hygrpo/metrics.json").read_text())
    assert metrics["pose_error"]["3dpw"]["policy"]["mpjpe"] > 0
    assert len((results / "rft_hygrpo/log.jsonl").read_text().splitlines()) == 20
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and "sample …" not in again.stderr, "what is done is kept"
