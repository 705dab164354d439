"""Folders that hold no model, another model, or a damaged one: one sentence, before anything is built from them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)

from pose_rft.errors import PoseRftError
from pose_rft.policy.architectures import llava_config
from pose_rft.policy.hub import Base, load_base, load_policy, load_pose_encoder, load_vitpose, save_policy
from pose_rft.policy.lora import ADAPTERS, add_lora
from pose_rft.policy.params import LoRAParams
from pose_rft.retrieval.model import load_retrieval
from pose_rft.retrieval.sentence_encoder import SentenceEncoder
from tests.support.tiny_policies import tiny_encoder, tiny_policy

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 13476835328\n"
LORA = LoRAParams(rank=2, alpha=4, dropout=0.0, targets=["q_proj"])


def save_vitpose(folder: Path) -> None:
    sizes = {"image_size": [64, 48], "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    backbone = VitPoseBackboneConfig(**sizes, out_indices=[1])  # type: ignore[arg-type]
    VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17)).save_pretrained(folder)


def save_plain(folder: Path) -> None:
    """What is looked at first is the same in any folder of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "xlm-roberta", "kind": "reward", "hidden_size": 8}))
    save_file({"weight": torch.zeros(8, 8)}, folder / "model.safetensors")


@pytest.fixture
def folders(base: Base, tmp_path: Path) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """{kind: (a sound folder, its loader)}."""
    model, processor = tiny_policy(base)
    base.save(tmp_path / "base")
    save_policy(tmp_path / "policy", add_lora(model, LORA), processor)
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    save_vitpose(tmp_path / "vitpose")
    for name in ("retrieval", "sentences"):
        save_plain(tmp_path / name)
    loaders: dict[str, Callable[[Path], Any]] = {
        "base": load_base,
        "policy": load_policy,
        "encoder": load_pose_encoder,
        "vitpose": load_vitpose,
        "retrieval": load_retrieval,
        "sentences": lambda folder: SentenceEncoder(str(folder)).tokens,
    }
    return {name: (tmp_path / name, loader) for name, loader in loaders.items()}


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: Any, *_: Any, **__: Any) -> None:
        raise AssertionError(f"{type(self).__name__} was built before the folder was looked at")

    monkeypatch.setattr(PreTrainedModel, "__init__", build)


KINDS = ("base", "policy", "encoder", "vitpose", "retrieval", "sentences")


@pytest.mark.parametrize("kind", KINDS)
def test_pointers_cut_files_and_damaged_configurations_are_one_sentence(folders: Any, kind: str, request: Any) -> None:
    """B1, in every place that loads weights."""
    folder, load = folders[kind]
    request.getfixturevalue("nothing_is_built")
    weights, config = folder / "model.safetensors", folder / "config.json"
    sound, settings = weights.read_bytes(), config.read_bytes()
    for content, words in (
        (POINTER, "git-LFS pointer"),
        (sound[:-10], "cut or damaged"),
        (sound[:20], "download it again"),
        (b"", "download it again"),
        (b"\xff" * 100, "download it again"),
    ):
        weights.write_bytes(content)
        with pytest.raises(PoseRftError, match=words) as error:
            load(folder)
        assert "model.safetensors" in str(error.value)
    weights.write_bytes(sound)
    for content, words in (
        (POINTER, "git-LFS pointer"),
        (settings[:-5], "not JSON"),
        (b"[]", "expected a dict"),
        (b"\xff\xfe", "not JSON"),
    ):
        config.write_bytes(content)
        with pytest.raises(PoseRftError, match=words) as error:
            load(folder)
        assert "config.json" in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 1_000_000), ("hidden_size", 60_000)])
def test_sizes_of_no_model_are_refused_before_it_is_built(
    folders: Any, kind: str, key: str, value: int, request: Any
) -> None:
    """S12."""
    folder, load = folders[kind]
    request.getfixturevalue("nothing_is_built")
    path = folder / "config.json"
    content = json.loads(path.read_text())
    inner = next((content[name] for name in ("llava", "text_config", "backbone_config") if name in content), content)
    inner.get("text_config", inner)[key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match=f"`{key}` .*no model has such a size"):
        load(folder)


@pytest.mark.parametrize("kind", ["base", "policy", "encoder", "vitpose", "sentences"])
def test_a_lora_adapter_is_no_model(folders: Any, kind: str, request: Any) -> None:
    """A4: alone, and with the configuration of its base beside it."""
    folder, load = folders[kind]
    request.getfixturevalue("nothing_is_built")
    content = {"peft_type": "LORA", "base_model_name_or_path": "/absolute/vicuna-7b", "r": 8}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match=r"is a LoRA adapter.*merge_and_unload"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(PoseRftError, match="is a LoRA adapter"):
        load(folder)


ORIGINAL = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
}


@pytest.mark.parametrize("content", [ORIGINAL, LlamaConfig().to_dict(), {"model_type": "llava_llama"}, {}])
def test_other_models_are_named_before_one_of_7b_is_built(
    tmp_path: Path, content: dict[str, Any], nothing_is_built: None
) -> None:
    """B2: the original format of LLaVA, a language model alone."""
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match=r"base_model\.source .* holds a .*, expected LlavaForConditionalGeneration"):
        load_base(tmp_path)
    with pytest.raises(PoseRftError, match=r"expected a ViTPose checkpoint"):
        load_vitpose(tmp_path)
    with pytest.raises(PoseRftError, match=r"expected a policy"):
        load_policy(tmp_path)


def test_a_configuration_of_7b_beside_small_weights_is_refused(folders: Any, nothing_is_built: None) -> None:
    """B2: with sizes left to their defaults, too."""
    folder, _ = folders["base"]
    content = llava_config("llava-hf/llava-1.5-7b-hf").to_dict()
    for text in (content["text_config"], {"model_type": "llama", "vocab_size": 32064}):
        (folder / "config.json").write_text(json.dumps(content | {"text_config": text}))
        with pytest.raises(PoseRftError, match="do not belong together"):
            load_base(folder)


def test_no_code_of_a_model_folder_is_run(folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S20: whatever `auto_map` says, and without a question on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    ran = tmp_path / "ran"
    for name in ("base", "policy", "encoder", "vitpose", "sentences"):
        folder, load = folders[name]
        path = folder / "config.json"
        names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForImageTextToText"), "evil.Evil")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": names}))
        (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
        try:
            load(folder)
        except PoseRftError:
            assert name == "sentences"  # not a whole model
    assert not ran.exists()


def test_a_damaged_tokenizer_is_one_sentence(folders: Any) -> None:
    for name in ("base", "policy"):
        folder, load = folders[name]
        for content in ("{", "{}", '{"model": {"type": "Nothing"}}'):
            (folder / "tokenizer.json").write_text(content)
            with pytest.raises(PoseRftError, match="no tokenizer"):
                load(folder)


def test_adapters_are_looked_at_like_weights(folders: Any) -> None:
    folder, load = folders["policy"]
    (folder / ADAPTERS).write_bytes(POINTER)
    with pytest.raises(PoseRftError, match="git-LFS pointer"):
        load(folder)


def test_llava_is_still_loaded(folders: Any) -> None:
    assert isinstance(load_base(folders["base"][0]).llava, LlavaForConditionalGeneration)


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "file, changes, sentence",
    [
        ("processor_config.json", {"image": {"size": 1, "pose_size": 32, "box_scale": 1.25}}, "CLIP takes 32"),
        ("processor_config.json", {"num_image_tokens": 3}, "tokens of a picture: 3"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "no tokenizer that can be read"),
        ("tokenizer_config.json", {"model_max_length": 128.5}, "no tokenizer that can be read"),
        ("config.json", {"dtype": "int64"}, "floating-point"),
        ("config.json", {"end_token_id": [2]}, "end of an answer"),
        ("config.json", {"fusion": "nothing"}, "expected one of add, concat, channel, clip_only"),
        ("config.json", {"covariance": "full"}, "expected one of diagonal, low_rank"),
        ("config.json", {"pose_token_id": 3}, "<POSE>"),
        ("config.json", {"suppressed_token_ids": [10**6]}, "suppresses words"),
        ("config.json", {"suppressed_token_ids": [3.5]}, "suppresses words"),
    ],
)
def test_a_policy_whose_files_do_not_fit_each_other_is_refused(
    folders: Any, file: str, changes: dict[str, Any], sentence: str
) -> None:
    """S21: they would fail at the first photograph, or answer nonsense."""
    folder, load = folders["policy"]
    change(folder / file, **changes)
    with pytest.raises(PoseRftError, match=sentence):
        load(folder)


def test_a_tokenizer_with_more_words_than_the_model_is_refused(folders: Any) -> None:
    folder, load = folders["policy"]
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["another"] = 9999
    path.write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match="do not belong together"):
        load(folder)
