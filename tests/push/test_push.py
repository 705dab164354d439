"""What `pose-rft push` writes: it loads where this project is not, says what it is, and is held back by its numbers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pose_rft.errors import PoseRftError
from pose_rft.policy.hub import load_policy
from pose_rft.push import folder, gate
from pose_rft.push.bundle import bundle

SUMMARY = {
    "data": {"3dpw": {"samples": 12}, "coco": {"samples": 7}},
    "pose_error": {"3dpw": {"rft_hygrpo": {"mpjpe": 128.4, "pa_mpjpe": 80.7}}},
    "recall": {"judge": {"full": {"rft_hygrpo": {"t2p": {"10": 35.2}}, "chance": {"t2p": {"10": 3.7}}}}},
}
ELSEWHERE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pose_rft", "stages", "cv2", "pydantic", "roma", "smplx"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import numpy as np, torch
{code}
seen = np.load("inputs.npz")
with torch.no_grad():
    said = policy(input_ids=torch.tensor(seen["ids"]), pixel_values=torch.tensor(seen["pixels"]),
                  pose_pixel_values=torch.tensor(seen["pose_pixels"]))
np.savez("said.npz", logits=said.logits, start=said.pose_start, mean=poses.mean.detach())
assert not any(name.startswith("pose_rft") for name in sys.modules)
"""


@pytest.mark.pipeline
def test_the_folder_loads_without_this_project_and_computes_the_same(policy, tmp_path):
    files = folder.write(policy, tmp_path / "pushed", "pushed", SUMMARY, True)
    assert {path.suffix for path in files} <= {".py", ".json", ".safetensors", ".md"}
    model, processor = load_policy(policy)
    ids = torch.tensor([processor.prompt_ids("What is the SMPL pose of this person?", True)])
    generator = torch.Generator().manual_seed(3)
    sides = (processor.image.size, processor.image.pose_size)
    pixels, pose_pixels = (torch.rand(1, 3, side, side, generator=generator) for side in sides)
    np.savez(tmp_path / "inputs.npz", ids=ids, pixels=pixels, pose_pixels=pose_pixels)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "pushed/README.md").read_text(), re.DOTALL)
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE.replace("{code}", code)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = np.load(tmp_path / "said.npz")
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=pixels, pose_pixel_values=pose_pixels)
    np.testing.assert_allclose(said["logits"], expected.logits, atol=1e-5)
    np.testing.assert_allclose(said["start"], expected.pose_start, atol=1e-5)
    assert said["mean"].shape == (1, 144)


def test_the_code_asks_for_nothing_but_torch_and_transformers():
    from transformers.dynamic_module_utils import get_imports

    wanted = set()
    for name, code in bundle().items():
        assert "pose_rft." not in re.sub(r"^# Made by.*$", "", code, flags=re.MULTILINE).split('"""')[-1], name
        file = Path(__file__).parent / name
        try:
            file.write_text(code)
            wanted |= set(get_imports(file))
        finally:
            file.unlink()
    assert wanted - sys.stdlib_module_names <= {"torch", "transformers", "numpy", "safetensors"}


def test_pushing_again_replaces_and_another_folder_is_left_alone(policy, tmp_path):
    for _ in range(2):
        folder.write(policy, tmp_path / "out", "out", SUMMARY, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(PoseRftError, match="holds files that are not of an earlier push"):
        folder.write(policy, tmp_path / "mine", "mine", SUMMARY, True)
    assert (tmp_path / "mine/thesis.tex").read_text() == "years of work"
    (tmp_path / "out/.git").mkdir()
    with pytest.raises(PoseRftError, match="holds files that are not of an earlier push"):
        folder.write(policy, tmp_path / "out", "out", SUMMARY, True)
    assert (tmp_path / "out/.git").is_dir()


def test_a_link_to_elsewhere_is_not_published_and_a_cache_is(policy, tmp_path):
    own, secret = tmp_path / "own", tmp_path / "id_rsa"
    shutil.copytree(policy, own)
    secret.write_text("secret")
    (own / "notes.txt").symlink_to(secret)
    with pytest.raises(PoseRftError, match=r"notes\.txt is a link to elsewhere, which would be published"):
        folder.write(own, tmp_path / "out", "out", SUMMARY, True)
    (own / "notes.txt").unlink()
    os.mkfifo(own / "pipe.json")
    with pytest.raises(PoseRftError, match=r"pipe\.json is a named pipe"):
        folder.write(own, tmp_path / "out", "out", SUMMARY, True)
    (own / "pipe.json").unlink()
    assert not (tmp_path / "out").exists()
    cached = tmp_path / "cache" / ("0123456789abcdef" * 2)[:30]  # as DVC and the hub name what they keep
    cached.parent.mkdir()
    (own / "model.safetensors").rename(cached)
    (own / "model.safetensors").symlink_to(cached)
    (own / "elsewhere").symlink_to(tmp_path)
    folder.write(own, tmp_path / "out", "out", SUMMARY, True)
    assert (tmp_path / "out/model.safetensors").read_bytes() == cached.read_bytes()
    assert not (tmp_path / "out/model.safetensors").is_symlink() and not (tmp_path / "out/elsewhere").exists()


def test_a_folder_inside_the_policy_holds_the_policy_once(policy, tmp_path):
    shutil.copytree(policy, tmp_path / "own")
    files = folder.write(tmp_path / "own", tmp_path / "own/pushed", "pushed", SUMMARY, True)
    assert all(path.parent == tmp_path / "own/pushed" for path in files)


def test_the_gate_lets_through_what_is_good_enough():
    gate.check(SUMMARY, ["pose_error.3dpw.rft_hygrpo.mpjpe<130", "recall.judge.full.rft_hygrpo.t2p.10 >= 35"])


@pytest.mark.parametrize(
    "requirement, said",
    [
        ("pose_error.3dpw.rft_hygrpo.mpjpe<100", "is 128.4, but < 100 is required"),
        ("pose_error.3dpw.rft.mpjpe<100", "it has rft_hygrpo"),
        ("pose_error.3dpw<100", "is no number"),
        ("mpjpe is small", "is not understood"),
        ("pose_error.3dpw.rft_hygrpo.mpjpe<nan", "is not understood"),
    ],
)
def test_the_gate_holds_back_in_one_sentence(requirement, said):
    with pytest.raises(PoseRftError, match=re.escape(said)):
        gate.check(SUMMARY, [requirement])


def test_a_hub_that_refuses_is_one_sentence(policy, tmp_path, monkeypatch):
    import huggingface_hub

    class Refusing:
        def create_repo(self, *_, **__):
            raise OSError("401 no token")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing)
    with pytest.raises(PoseRftError, match=r"was not pushed.*HF_TOKEN"):
        folder.to_hub(tmp_path, "me/pose")


@pytest.mark.slow
def test_onnx_gives_what_torch_gives(policy, tmp_path):
    import onnxruntime

    from pose_rft.push.onnx import export, parts

    files = export(policy, tmp_path)
    model, _ = load_policy(policy)
    for part in parts(model):
        assert tmp_path / f"{part.name}.onnx" in files
        inputs = {name: torch.cat([x] * 3) if part.free else x for name, x in part.inputs.items()}
        session = onnxruntime.InferenceSession(tmp_path / f"{part.name}.onnx")
        given = session.run(list(part.outputs), {name: x.numpy() for name, x in inputs.items()})
        with torch.no_grad():
            expected = part.network(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(given, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
