"""Trains a tiny policy to answer a sentence with a pose, and draws poses from it.

A policy is a LLaVA with a pose head: it says words, and where it says `<POSE>` the head reads a Gaussian over 24 joint
rotations (6D, 144 numbers) off its hidden state. Here it has a few thousand weights and learns two sentences.
"""

import tempfile
from pathlib import Path

import torch

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import axis_angle_to_matrix, matrix_to_sixd, sixd_to_matrix
from pose_rft.policy import templates
from pose_rft.policy.hub import create_base, create_policy
from pose_rft.policy.params import BaseModelParams, PolicyParams
from pose_rft.policy.processor import ImageParams
from pose_rft.sample.tokenizer import write_tokenizer

SENTENCES = ("the left arm is raised", "the right arm is raised")
SIZES = {
    "vision": {"width": 16, "layers": 2, "heads": 2, "patch": 16},
    "language": {"width": 32, "layers": 2, "heads": 2},
}
IMAGE = ImageParams(size=32, pose_size=32, box_scale=1.25)
POLICY = {
    "fusion": "clip_only",  # no pose encoder: sentences need none
    "covariance": "diagonal",
    "covariance_rank": 1,
    "log_std": {"min": -5.0, "max": -0.5, "init": -2.0},
    "mean_scale": 1.0,
}


def raised(side: str) -> torch.Tensor:
    """(24, 6): the rest pose with one arm turned up by 80°."""
    turns = torch.zeros(24, 3)
    turns[SMPL24.index(f"{side}_shoulder"), 2] = 1.4 if side == "left" else -1.4
    return matrix_to_sixd(axis_angle_to_matrix(turns))


def main(folder: Path, steps: int = 60) -> tuple[float, float]:
    """Returns the negative log-likelihood of the two poses before and after the training, nats per number."""
    torch.manual_seed(0)
    write_tokenizer(folder, [templates.prompt(text, False) + templates.ANSWER for text in SENTENCES] * 4, 300)
    tiny = BaseModelParams.model_validate({"source": "tiny", "dtype": "float32", "tiny": SIZES})
    base = create_base(tiny, IMAGE, folder)
    model, processor = create_policy(base, None, PolicyParams.model_validate(POLICY), IMAGE, "gaussian")

    prompts = [processor.prompt_ids(text, False) + list(processor.answer_ids) for text in SENTENCES]
    target = torch.stack([raised("left"), raised("right")]).flatten(1)  # (2, 144)
    at = [ids.index(model.config.pose_token_id) - 1 for ids in prompts]  # the state that predicts <POSE>
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        states = [model(torch.tensor([ids])).hidden_states[0, i] for ids, i in zip(prompts, at, strict=True)]
        poses = model.pose_distribution(torch.stack(states))
        loss = -poses.log_prob(target).mean() / target.shape[1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    print(f"negative log-likelihood {losses[0]:.2f} -> {losses[-1]:.2f} nats per number")

    drawn = poses.sample(torch.Generator().manual_seed(0), k=4)
    rotations = sixd_to_matrix(drawn.unflatten(-1, (24, 6)))
    print(f"poses drawn for each sentence: {drawn.shape[1]}, as rotations {tuple(rotations.shape)}")
    return losses[0], losses[-1]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
