"""Scores how a sentence and a pose fit: a retrieval model, trained for a moment on captions that are made by rule.

Both are embedded as vectors of length 1, and the score is their scalar product. With another architecture and human
captions this is the reward of RFT; a trained one is loaded by `pose_rft.retrieval.model.load_retrieval`.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.captions.describe import describe_poses
from pose_rft.retrieval.pairs import Pairs
from pose_rft.retrieval.params import RetrievalParams
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.standin import build_standin
from pose_rft.seeds import numpy_rng
from pose_rft.training.retrieval import train

STEPS = {"steps": 60, "batch": 32, "learning_rate": 2e-3}
PARAMS = {
    "mirror": 0.0,
    "pose_noise": 8.0,
    "pretrain_captions": 1,
    "validate_every": 30,
    "save_every": 1000,
    "reward": {
        "sentence": {"model": "all-MiniLM-L6-v2"},
        "latent": 32,
        "text": {"layers": 1, "heads": 2, "feedforward": 32, "dropout": 0.1},
        "pose_neurons": 32,
        "pose_bottleneck": 8,
        "pretrain": STEPS,
        "finetune": STEPS,
    },
    "judge": {
        "latent": 32,
        "word_width": 16,
        "recurrent_width": 16,
        "pose_width": 32,
        "dropout": 0.1,
        "pretrain": STEPS,
        "finetune": STEPS,
    },
}


def make_pairs(count: int, seed: int, rest_joints: np.ndarray) -> Pairs:
    """Poses at random with a caption each, heading removed by construction of the key poses."""
    rngs = [numpy_rng(seed, "example", i) for i in range(count)]
    poses = np.stack([sample_pose(rng) for rng in rngs])
    captions = tuple(map(tuple, describe_poses(poses, rest_joints, rngs, 1)))
    keys = tuple(f"pose_{seed}_{i}" for i in range(count))
    return Pairs(keys, torch.from_numpy(poses).float(), captions, captions)


def main(folder: Path) -> tuple[float, float]:
    """Returns the mean score of poses with their own sentences, and with those of others."""
    build_standin(folder / "body")
    rest = NumpyBody(folder / "body", "neutral").rest_joints()
    pairs, others = make_pairs(256, 0, rest), make_pairs(32, 1, rest)
    params = RetrievalParams.model_validate(PARAMS)
    model = train("judge", params, pairs, others, torch.from_numpy(rest).float(), folder / "scratch", 0).model

    sentences = [texts[0] for texts in others.human]
    scores = model.embed_text(sentences) @ model.embed_pose(others.rotations).T  # (32 sentences, 32 poses)
    own, strange = float(scores.diagonal().mean()), float(scores[~torch.eye(len(scores), dtype=torch.bool)].mean())
    print(f"{sentences[0]}")
    print(f"score of its own pose {scores[0, 0]:.2f}, of another one {scores[0, 1]:.2f}")
    print(f"mean score of own poses {own:.2f}, of others {strange:.2f}")
    return own, strange


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
