"""Which model a command takes where none is named, and the half-precision copy that a wheel carries."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pose_rft import wheel_model
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.policy import packaged, pretrained
from pose_rft.policy.hub import load_policy
from pose_rft.predict import chosen


@pytest.fixture
def detector(tmp_path, monkeypatch) -> Path:
    """A cache folder whose detector is a file of a few bytes."""
    import hashlib

    monkeypatch.setenv(pretrained.FOLDER_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/detector.tflite").write_bytes(b"detector")
    source = pretrained.Source("detector.tflite", hashlib.sha256(b"detector").hexdigest(), "a package")
    monkeypatch.setattr(pretrained, "DETECTOR", source)
    return tmp_path / "cache/detector.tflite"


@pytest.fixture
def bodies(tmp_path, tiny_folder) -> Path:
    """A body that says it is the sample's stand-in."""
    shutil.copytree(tiny_folder, tmp_path / "bodies")
    (tmp_path / "bodies/standin.json").write_text("{}")
    return tmp_path / "bodies"


@pytest.fixture
def packed(tmp_path, monkeypatch, policy_folder, bodies, detector) -> Path:
    out = tmp_path / "package/default_model"
    wheel_model.build(policy_folder, bodies, out)
    monkeypatch.setattr(packaged, "FOLDER", out)
    monkeypatch.chdir(tmp_path)  # away from params.yaml and models
    return out


def test_the_packed_model_is_half_as_large_and_computes_the_same(packed, policy_folder):
    half, whole = (load_file(folder / "model.safetensors") for folder in (packed / "policy", policy_folder))
    assert all(value.dtype == torch.float16 for value in half.values() if value.is_floating_point())
    model, processor = load_policy(packed / "policy")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    for name, value in model.state_dict().items():
        if name in whole:
            torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-6)
    assert processor.prompt_ids("he stands", False) == load_policy(policy_folder)[1].prompt_ids("he stands", False)
    assert len(load_body_model(packed / "body_models").faces)


def test_without_a_run_the_packed_model_is_taken_and_nothing_is_fetched(packed, detector):
    assert chosen.policy(None) == packed / "policy"
    assert chosen.body(None, packed / "policy") == chosen.body(None) == packed / "body_models"
    detector.unlink()
    assert pretrained.find(pretrained.DETECTOR) == packed / "detector.tflite"


def test_a_run_and_a_named_model_come_first(packed, tmp_path):
    for folder in (tmp_path / "models/rft_hygrpo", tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
    assert chosen.policy(None) == chosen.RUN
    assert chosen.policy(tmp_path) == tmp_path and chosen.body(tmp_path, tmp_path) == tmp_path


@pytest.mark.parametrize("named", [None, Path("nowhere")])
def test_no_model_is_one_sentence(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "none")
    with pytest.raises(PoseRftError, match=r"does not exist.*--model"):
        chosen.policy(named)


def test_a_licensed_body_is_never_packed(tmp_path, policy_folder, tiny_folder, detector):
    with pytest.raises(PoseRftError, match="only the sample's stand-in"):
        wheel_model.build(policy_folder, tiny_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_too_large_for_a_wheel_are_not_packed(packed, policy_folder, bodies, monkeypatch):
    size = (packed / "policy/model.safetensors").stat().st_size
    monkeypatch.setattr(wheel_model, "LARGEST", size - 1)
    with pytest.raises(PoseRftError, match=r"takes .* MB in half precision, expected .* MB at most"):
        wheel_model.build(policy_folder, bodies, packed.parent / "another")
    assert list(packed.parent.iterdir()) == [packed]
    monkeypatch.setattr(wheel_model, "LARGEST", size)
    wheel_model.build(policy_folder, bodies, packed.parent / "another")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    import os

    program = [sys.executable, "-c", "from pose_rft.cli import main; main()", *arguments]
    return subprocess.run(program, capture_output=True, text=True, env=os.environ | environment)


def test_the_version_and_completion_need_no_heavy_import():
    assert command("--version").stdout.startswith("pose-rft ")
    said = command(_POSE_RFT_COMPLETE="complete_bash", COMP_WORDS="pose-rft qui", COMP_CWORD="1")
    assert "quickstart" in said.stdout or command("--show-completion", "bash").returncode == 0
    heavy = "import sys, pose_rft.cli; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "transformers", "fastapi"} & set(loaded)


def test_quickstart_leads_to_a_picture(packed, answering, picture, tmp_path, capsys):
    import cv2

    from pose_rft import cli, quickstart

    ok, data = cv2.imencode(".png", picture)
    assert ok
    (tmp_path / "me.png").write_bytes(data.tobytes())
    assert quickstart.prepare() == packed / "policy"
    me, out = [str(tmp_path / "me.png")], tmp_path / "out"
    cli.predict(me, box="20,10,60,60", model=packed / "policy", out=out, overlay=True)
    assert json.loads((out / "predictions.jsonl").read_text().splitlines()[0])["body_model"] == "anny-standin"
    assert str(out / "me.png") in quickstart.outcome(out, tmp_path / "me.png")
    assert np.load(packed / "body_models/J_regressor_h36m.npy").shape[0] == 17
