import argparse
import os

import pytest
import torch

from pose_rft.errors import PoseRftError
from pose_rft.retrieval.model import load_retrieval
from pose_rft.retrieval.params import RewardModelParams
from pose_rft.retrieval.posescript import load_posescript
from tests.support.retrieval_fakes import HIDDEN, pairs, tiny_encoder, tiny_params

LATENT, NEURONS, NECK, FEEDFORWARD = 8, 12, 4, 16


def released(encoder, folder, topping="avgp"):
    """A checkpoint with the released model's key names and shapes in small."""
    from transformers import AutoModel

    torch.manual_seed(3)
    weights = {"loss_weight": torch.tensor([12.0])}

    def linear(name, out, into):
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.randn(out, into) * 0.3, torch.randn(out) * 0.1

    def norm(name, size):
        linear(name, size, size)
        weights[f"{name}.weight"] = torch.rand(size) + 0.5

    for number, size in ((1, 156), (4, NEURONS)):
        norm(f"pose_encoder.encoder.{number}", size)
        weights[f"pose_encoder.encoder.{number}.running_mean"] = torch.zeros(size)
        weights[f"pose_encoder.encoder.{number}.running_var"] = torch.ones(size)
        weights[f"pose_encoder.encoder.{number}.num_batches_tracked"] = torch.tensor(7)
    for number, out, into in ((2, NEURONS, 156), (6, NEURONS, NEURONS), (7, NEURONS, NEURONS), (8, NECK, NEURONS)):
        linear(f"pose_encoder.encoder.{number}", out, into)
    linear("pose_encoder.encoder.10", LATENT, NECK)
    linear("text_encoder.projection.1", LATENT, HIDDEN)
    weights["text_encoder.positional_encoding.pe"] = torch.zeros(5000, 1, LATENT)
    for layer in range(2):
        name = f"text_encoder.transformer_encoder.layers.{layer}"
        linear(f"{name}.self_attn.out_proj", LATENT, LATENT)
        weights[f"{name}.self_attn.in_proj_weight"] = torch.randn(3 * LATENT, LATENT) * 0.3
        weights[f"{name}.self_attn.in_proj_bias"] = torch.zeros(3 * LATENT)
        linear(f"{name}.linear1", FEEDFORWARD, LATENT)
        linear(f"{name}.linear2", LATENT, FEEDFORWARD)
        norm(f"{name}.norm1", LATENT)
        norm(f"{name}.norm2", LATENT)
    if topping == "augtokens":
        weights["text_encoder.augm_tokens.0"] = torch.randn(LATENT)
        linear("text_encoder.augm_token_final_FC_layers.0", LATENT, LATENT)
    own = AutoModel.from_pretrained(encoder).state_dict()
    weights |= {f"text_encoder.pretrained_text_encoder.{name}": value for name, value in own.items()}
    options = argparse.Namespace(text_encoder_name="distilbertUncased", transformer_topping=topping, latentD=LATENT)
    path = folder / "checkpoint_best.pth"
    torch.save({"epoch": 3, "model": weights, "optimizer": {}, "args": options, "best_score": 47.9}, path)
    return path, weights


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), kind="distilbert")


def params(encoder) -> RewardModelParams:
    return tiny_params(encoder).reward


@pytest.mark.parametrize("topping", ["avgp", "augtokens"])
def test_a_released_checkpoint_becomes_a_reward_model(topping, encoder, tmp_path):
    path, weights = released(encoder, tmp_path, topping)
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
    path, weights = released(encoder, tmp_path)
    weights["pose_encoder.encoder.12.weight"] = weights.pop("text_encoder.projection.1.bias")
    torch.save({"model": weights, "args": argparse.Namespace()}, path)
    with pytest.raises(
        PoseRftError, match=r"missing \['text.projection.bias'\].*unexpected \['pose.layers.11.weight'\]"
    ):
        load_posescript(path, params(encoder))


def test_a_checkpoint_over_another_encoder_is_refused(encoder, tmp_path):
    path, weights = released(encoder, tmp_path)
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
