"""`python -m benchmarks.gradient_noise`: how noisy HyGRPO's gradient is with K poses per answer, and what a step costs.

Run it in a project whose SFT and retrieval models are trained. The policy answers the prompts of the first step
repeatedly, each time with another random seed, and each time the gradient of eq. 6 with respect to all trained weights
is computed. Signal is the norm of the mean gradient (its square corrected for the noise), noise the square root of the
trace of the gradients' covariance; averaging the noise down to the signal takes (noise / signal)² steps.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import torch
from torch import Tensor

from pose_rft.batches.examples import ExampleStream
from pose_rft.batches.feature_cache import image_token_source
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.hygrpo.params import RFTParams
from pose_rft.hygrpo.pose_draws import PoseDraws
from pose_rft.hygrpo.reference import ReferencePolicy
from pose_rft.hygrpo.step_log import StepLog
from pose_rft.hygrpo.trainer import Trainer, TrainerComponents, captions_ahead
from pose_rft.inference.passes import Preparer, sampling, scoring
from pose_rft.inference.rewards import Rewards
from pose_rft.params import Seeds, body_model_folder, load
from pose_rft.policy import hub
from pose_rft.policy.lora import trainable_parameters
from pose_rft.policy.processor import ImageParams
from pose_rft.retrieval.ensemble import load_ensemble
from pose_rft.retrieval.sentence_encoder import SentenceEncoder
from pose_rft.seeds import derive
from stages.rft import POLICY, RETRIEVAL
from stages.samples import TRAIN, samples


class Bench:
    """A policy and its rewards; `gradient` answers the same prompts with another random seed for every draw."""

    def __init__(self, policy: Path) -> None:
        self.params = load("rft", RFTParams)
        self.seed = derive(load("seed", Seeds).train, "rft")
        body = load_body_model(body_model_folder())
        self.model, processor = hub.load_policy(policy)
        trainable_parameters(self.model, "full")
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        training = {name: samples(f"{name}/{TRAIN}") for name in self.params.examples.datasets()}
        stream = ExampleStream(training, self.params.examples, processor, body, self.seed)
        shown = {samples.name: samples for samples in training.values()}
        tokens = image_token_source(self.model, load("image", ImageParams), shown, None)
        retrieval, encoder = load_ensemble(RETRIEVAL), SentenceEncoder(self.params.rewards.sentence_encoder)
        rewards = Rewards(body, retrieval, encoder, processor, self.params.rewards)
        rewards.remember(captions_ahead(stream.draw, self.params.batch))
        device = torch.device("cpu")
        self.tools = TrainerComponents(
            stream.draw,
            Preparer(processor, tokens, device),
            sampling(self.params.group_size, self.params.max_new_tokens, self.params.temperature),
            scoring(self.params.temperature),
            rewards,
        )
        self.engine: Any = SimpleNamespace(
            world_size=1, accumulation=1, rank=0, device=device, module=self.model, mean=float
        )

    def gradient(self, poses: int, form: PoseDraws, draw: int) -> tuple[Tensor, float]:
        """Returns the gradient of all weights as one vector, and the seconds of scoring, rewards and backward pass."""
        params = self.params.model_copy(update={"poses_per_answer": poses, "pose_draws": form})
        seed = derive(self.seed, "noise", draw)
        trainer = Trainer(self.engine, ReferencePolicy(self.model), self.tools, params, "hygrpo", seed)
        log = StepLog(1, self.engine.device, None)
        (batch,) = trainer.prompts(0)
        answers = trainer.completions(self.model, batch, log)
        began = time.perf_counter()
        scores = trainer.scores(self.model, batch, answers, log)
        drawn = trainer.poses(batch, scores, log)
        loss = trainer.objective(
            scores, trainer.rewards_and_advantages(self.model, batch, answers, scores, drawn, log), log
        )
        found = torch.autograd.grad(loss, self.weights, allow_unused=True)
        seconds = time.perf_counter() - began
        pieces = [torch.zeros_like(w) if g is None else g for w, g in zip(self.weights, found, strict=True)]
        return torch.cat([piece.flatten() for piece in pieces]), seconds


def signal_and_noise(gradients: Tensor) -> tuple[float, float]:
    """(N, D) gradients → norm of the mean, corrected for noise (0 if noise dominates), root of the trace of Cov."""
    mean = gradients.mean(0)
    noise = float((gradients - mean).square().sum() / (len(gradients) - 1))
    return max(float(mean.square().sum()) - noise / len(gradients), 0.0) ** 0.5, noise**0.5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.gradient_noise", description=__doc__)
    parser.add_argument("--poses", nargs="+", type=int, default=(1, 4, 16, 72), help="K")
    parser.add_argument("--policy", type=Path, default=POLICY, help="whose gradient, say models/rft_hygrpo")
    parser.add_argument("--draws", type=int, default=24, help="gradients for each K and kind of draws")
    options = parser.parse_args(arguments)
    for needed in (options.policy, RETRIEVAL):
        if not needed.is_dir():
            sys.exit(f"error: {needed} is not there; run `dvc repro rft@hygrpo` first.")
    try:
        bench = Bench(options.policy)
    except PoseRftError as error:
        sys.exit(f"error: {error}")
    print("| poses | K | signal | noise | noise / signal | steps to average | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for poses, form in product(options.poses, get_args(PoseDraws)):
        gradients, seconds = zip(*(bench.gradient(poses, form, draw) for draw in range(options.draws)), strict=True)
        signal, noise = signal_and_noise(torch.stack(gradients))
        ratio = noise / signal if signal else float("inf")
        cells = f"{signal:.2f} | {noise:.2f} | {ratio:.1f} | {ratio**2:.0f} | {min(seconds):.3f}"
        print(f"| {form} | {poses} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
