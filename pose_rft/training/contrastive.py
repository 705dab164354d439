"""Trains the tiny CLIP vision tower on the image-caption pairs of the shards (symmetric InfoNCE, arXiv 2103.00020).

OpenAI's CLIP is too large for the sample, and a tower with random weights would make the `clip_only` ablation and the
projector W_a meaningless. The text tower is a small convolution over the base model's own tokens and is discarded after
training. Captions mention left and right, so images are not mirrored.
"""

import math
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModel, PreTrainedTokenizerBase

from pose_rft.batches.crop_cache import Crops, pixels
from pose_rft.batches.samples import Samples
from pose_rft.policy.config import CLIP_NORM
from pose_rft.policy.params import ContrastiveParams
from pose_rft.seeds import derive, numpy_rng
from pose_rft.shards.mixture import Mixture, Source
from pose_rft.training import loop
from pose_rft.training.engine import Engine, EngineParams
from pose_rft.training.loop import StepStats

WARMUP = 0.05
SAVE_EVERY = 200
LONGEST = 96  # tokens of a caption; longer ones are truncated
NEAR = 5  # kernel size of the text tower, tokens
FIRST_SCALE, LARGEST_SCALE = math.log(1 / 0.07), math.log(100.0)  # of CLIP


class TextTower(nn.Module):
    """Token ids → one vector: embeddings, a convolution over nearby words ("left knee"), maximum over the caption."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width // 2)
        self.near = nn.Conv1d(width // 2, width, NEAR, padding=NEAR // 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) ids, (B, T) bool mask → (B, width)."""
        words = self.token(ids) * mask[..., None]
        states = F.gelu(self.near(words.transpose(1, 2)))
        return states.masked_fill(~mask[:, None], 0.0).amax(-1)


class ImageTextPair(nn.Module):
    """Both towers, their projections into a shared space, and the learned scale of their cosine similarity."""

    def __init__(self, vision: CLIPVisionModel, vocabulary: int, width: int) -> None:
        super().__init__()
        self.vision = vision
        self.text = TextTower(vocabulary, width)
        self.image_projection = nn.Linear(vision.config.hidden_size, width, bias=False)
        self.text_projection = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor([FIRST_SCALE]))  # DeepSpeed rejects 0-dimensional parameters

    def similarity(self, x: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, 3, S, S), (B, T), (B, T) → (B, B) scaled cosine similarities, images x captions."""
        images = F.normalize(self.image_projection(self.features(x)), dim=-1)
        texts = F.normalize(self.text_projection(self.text(ids, mask)), dim=-1)
        return self.log_scale.clamp(max=LARGEST_SCALE).exp() * images @ texts.T

    def features(self, x: Tensor) -> Tensor:
        """The mean patch token of the layer that LLaVA reads (the last but one), so that this layer is trained."""
        return self.vision(x, output_hidden_states=True).hidden_states[-2][:, 1:].mean(1)


def train(
    vision: CLIPVisionModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Samples,
    crops: Crops,
    params: ContrastiveParams,
    scratch: Path,
    seed: int,
) -> tuple[pl.DataFrame, ImageTextPair]:
    """Trains `vision` in place; returns the log and the pair.

    Args:
        samples: only those with image and caption are used; crops: (N, S, S, 3), of all samples.
    Raises:
        PoseRftError: a loss is not finite.
    """
    rows = pairs(samples)
    torch.manual_seed(derive(seed, "contrastive"))
    model = ImageTextPair(vision, len(tokenizer), params.width).requires_grad_(True)
    for after in (vision.post_layernorm, vision.encoder.layers[-1]):  # they follow the layer that is read
        after.requires_grad_(False)
    optimiser = EngineParams(lr=params.learning_rate, weight_decay=params.weight_decay, warmup=WARMUP)
    engine = Engine(model, optimiser, params.steps)
    mixture = Mixture({"pairs": Source(len(rows), 1.0)}, derive(seed, "contrastive", "order"))
    batch = min(params.batch, len(rows))

    def one_step(step: int) -> StepStats:
        chosen = [rows[mixture.draw(step * batch + i)[1]] for i in range(batch)]
        rng = numpy_rng(seed, "contrastive", "captions", step)
        texts = [samples.captions[row][int(rng.integers(len(samples.captions[row])))].text for row in chosen]
        x = pixels(crops, chosen, CLIP_NORM).to(engine.device)
        similarity = engine.module.similarity(x, *(t.to(engine.device) for t in tokens(tokenizer, texts)))
        target = torch.arange(batch, device=engine.device)
        loss = (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
        engine.backward(loss, [samples.keys[row] for row in chosen])
        norm = engine.step(step)
        return StepStats(float(loss.detach()), batch, {"gradient_norm": norm, "top1": top_k(similarity, 1)})

    return loop.run(engine, one_step, params.steps, scratch, SAVE_EVERY, "base_model", seed), engine.module


@torch.no_grad()
def heldout_recall(
    model: ImageTextPair, tokenizer: PreTrainedTokenizerBase, samples: Samples, crops: Crops, k: int, most: int
) -> tuple[float, int]:
    """Share of held-out images whose own first caption is among the k nearest, and the number of pairs (≤ most)."""
    model.eval()
    rows = pairs(samples)[:most]
    device = next(model.parameters()).device
    texts = [samples.captions[row][0].text for row in rows]
    x = pixels(crops, rows, CLIP_NORM).to(device)
    similarity = model.similarity(x, *(t.to(device) for t in tokens(tokenizer, texts)))
    return top_k(similarity, k), len(rows)


def pairs(samples: Samples) -> list[int]:
    """Rows with an image and a caption."""
    return [row for row, captions in enumerate(samples.captions) if captions and samples.has_image[row]]


def tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> tuple[Tensor, Tensor]:
    """(B, T) ids and (B, T) bool mask, T ≤ LONGEST."""
    encoded = [tokenizer.encode(text, add_special_tokens=False)[:LONGEST] for text in texts]
    ids = np.zeros((len(texts), max(1, *(len(row) for row in encoded))), np.int64)
    mask = np.zeros(ids.shape, bool)
    for i, row in enumerate(encoded):
        ids[i, : len(row)], mask[i, : max(1, len(row))] = row, True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def top_k(similarity: Tensor, k: int) -> float:
    """Share of rows whose diagonal entry is among their k largest."""
    own = similarity.diagonal()[:, None]
    return float(((similarity > own).sum(1) < k).float().mean())
