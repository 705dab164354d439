"""Tiny models, a tiny sentence encoder in the hub's format, and pairs whose captions tell the pose."""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import amass_to_camera, remove_heading
from pose_rft.body.joints import SMPL24
from pose_rft.retrieval.pairs import Pairs
from pose_rft.retrieval.params import RetrievalParams

SIDES = ("left", "right")
PLACES = ("down", "forward", "up", "out")
TURNS = {"down": (0, 0, -80), "forward": (0, -85, 0), "up": (0, 0, 80), "out": (0, 0, 0)}
WORDS = tuple("the a person and arm leg is held straight points keeps raised lowered knee bent . ,".split())  # noqa: SIM905
HIDDEN = 16
LATENT, NEURONS, NECK, FEEDFORWARD = 8, 12, 4, 16  # of the released model in small
REST_JOINTS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)) * 0.3


def tiny_encoder(folder: Path, kind: str = "bert", layers: int = 2) -> Path:
    """An untrained BERT or DistilBERT with a word vocabulary, saved as `save_pretrained` does."""
    from transformers import BertConfig, BertModel, BertTokenizerFast, DistilBertConfig, DistilBertModel

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *SIDES, *PLACES]
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=HIDDEN,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(folder)
    else:
        distilled = DistilBertConfig(
            vocab_size=len(words), max_position_embeddings=64, n_layers=layers, n_heads=2, dim=HIDDEN, hidden_dim=32
        )
        DistilBertModel(distilled).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    BertTokenizerFast(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


def released_posescript(encoder: Path, folder: Path, topping: str = "avgp") -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint with the released PoseScript model's key names and shapes in small."""
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


def tiny_params(encoder: Path | str, pretrain: int = 6, finetune: int = 6, **changes: object) -> RetrievalParams:
    """A complete `retrieval` section of toy size."""
    schedules = {
        "pretrain": {"steps": pretrain, "batch": 16, "learning_rate": 3e-3},
        "finetune": {"steps": finetune, "batch": 16, "learning_rate": 3e-3},
    }
    return RetrievalParams.model_validate(
        {
            "mirror": 0.5,
            "validate_every": 4,
            "save_every": 3,
            "reward": {
                "sentence": {"model": str(encoder)},
                "latent": 16,
                "text": {"layers": 1, "heads": 2, "feedforward": 32, "dropout": 0.1},
                "pose_neurons": 32,
                "pose_bottleneck": 16,
                **schedules,
            },
            "judge": {
                "latent": 16,
                "word_width": 12,
                "recurrent_width": 12,
                "pose_width": 24,
                "dropout": 0.1,
                **schedules,
            },
        }
        | changes
    )


def pairs(count: int, seed: int = 0, human: bool = True) -> Pairs:
    """Arms in one of four directions each, said in plain words; every third pose has no human caption."""
    rng = np.random.default_rng(seed)
    upright = amass_to_camera(torch.eye(3, dtype=torch.float64)).numpy()
    poses, automatic, spoken = np.tile(np.eye(3), (count, 24, 1, 1)), [], []
    for i in range(count):
        poses[i, 0] = upright
        said = []
        for side, sign in zip(SIDES, (1, -1), strict=True):
            place = PLACES[rng.integers(len(PLACES))]
            x, y, z = np.array(TURNS[place]) + rng.normal(scale=6, size=3)
            turn = Rotation.from_rotvec(np.radians([x, sign * y, sign * z])).as_matrix()
            poses[i, SMPL24.index(f"{side}_shoulder")] = turn
            said.append((side, place))
        automatic.append((_sentence("the {} arm points {}", said), _sentence("the {} arm is held {}", said)))
        spoken.append((_sentence("a person keeps the {} arm {}", said),) if human and i % 3 else ())
    rotations = torch.from_numpy(poses)
    rotations[:, 0] = remove_heading(rotations[:, 0])
    keys = tuple(f"pose_{seed}_{i}" for i in range(count))
    return Pairs(keys, rotations.float(), tuple(automatic), tuple(spoken))


def _sentence(template: str, said: list[tuple[str, str]]) -> str:
    return " and ".join(template.format(side, place) for side, place in said) + "."
