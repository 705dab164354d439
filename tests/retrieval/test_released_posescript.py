import argparse
import os

import pytest
import torch

from pose_rft.errors import PoseRftError
from pose_rft.retrieval.model import load_retrieval
from pose_rft.retrieval.params import RewardModelParams
from pose_rft.retrieval.posescript import load_posescript
from tests.support.retrieval_fakes import LATENT, pairs, released_posescript, tiny_encoder, tiny_params


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), kind="distilbert")


def params(encoder) -> RewardModelParams:
    return tiny_params(encoder).reward


@pytest.mark.parametrize("topping", ["avgp", "augtokens"])
def test_a_released_checkpoint_becomes_a_reward_model(topping, encoder, tmp_path):
    path, weights = released_posescript(encoder, tmp_path, topping)
    model = load_posescript(path, params(encoder))
    assert model.scale.item() == 12.0 and not model.training
    assert torch.equal(model.pose.layers[9].weight, weights["pose_encoder.encoder.10.weight"])
    layer = model.text.transformer.layers[1]
    assert torch.equal(layer.linear1.weight, weights["text_encoder.transformer_encoder.layers.1.linear1.weight"])
    assert (model.text.summary is not None) == (topping == "augtokens")
    texts, poses = model.embed_text(["the left arm is up ."]), model.embed_pose(pairs(4).rotations)
    assert texts.shape == (1, LATENT) and poses.shape == (4, LATENT)
    model.save(tmp_path / "saved")
    assert torch.equal(load_retrieval(tmp_path / "saved").embed_text(["the left arm is up ."]), texts)


def test_missing_and_unexpected_weights_are_listed(encoder, tmp_path):
    path, weights = released_posescript(encoder, tmp_path)
    weights["pose_encoder.encoder.12.weight"] = weights.pop("text_encoder.projection.1.bias")
    torch.save({"model": weights, "args": argparse.Namespace()}, path)
    with pytest.raises(
        PoseRftError, match=r"missing \['text.projection.bias'\].*unexpected \['pose.layers.11.weight'\]"
    ):
        load_posescript(path, params(encoder))


def test_a_checkpoint_over_another_encoder_is_refused(encoder, tmp_path):
    path, weights = released_posescript(encoder, tmp_path)
    name = next(name for name in weights if name.startswith("text_encoder.pretrained_text_encoder."))
    weights[name] = weights[name] + 1
    torch.save({"model": weights, "args": argparse.Namespace()}, path)
    with pytest.raises(PoseRftError, match="another encoder"):
        load_posescript(path, params(encoder))


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_checkpoint_runs_no_code(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "args": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(PoseRftError, match="cannot be read"):
        load_posescript(tmp_path / "bad.pth", params(encoder))
    assert not (tmp_path / "harmed").exists()


def test_files_that_are_no_checkpoint_are_one_sentence(encoder, tmp_path):
    with pytest.raises(PoseRftError, match="does not exist"):
        load_posescript(tmp_path / "nowhere.pth", params(encoder))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(PoseRftError, match="cannot be read"):
        load_posescript(tmp_path / "text.pth", params(encoder))
    torch.save(
        {"model": {}, "args": argparse.Namespace(text_encoder_name="glovebigru_vocA2H2")}, tmp_path / "other.pth"
    )
    with pytest.raises(PoseRftError, match="glovebigru"):
        load_posescript(tmp_path / "other.pth", params(encoder))


def test_a_damaged_archive_is_one_sentence(encoder, tmp_path):  # S21
    path, _ = released_posescript(encoder, tmp_path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:cut] + b"\xff" * 30 + whole[cut + 30 :] if cut % 2 else whole[:cut])
        try:
            load_posescript(path, params(encoder))
        except PoseRftError as error:
            assert str(path) in str(error)
    for content in ({"model": {1: torch.ones(2)}}, {"model": {"pose_encoder.encoder.x": torch.ones(2)}}, [1]):
        torch.save(content, path)
        with pytest.raises(PoseRftError, match=r"checkpoint_best\.pth"):
            load_posescript(path, params(encoder))
