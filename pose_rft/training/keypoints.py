"""Trains the small `conv_vit` pose encoder: from a crop to the 2D positions of SMPL's joints.

Every image data set has 2D keypoints, whatever the quality of its 3D labels; an encoder that finds them carries the
pose into the language model in a few tokens. Crops are mirrored half of the time and augmented in contrast and tint.
`vitpose` and `hmr2` encoders are imported, not trained here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pose_rft.batches.crop_cache import Crops, load_crops, pixels, square_of
from pose_rft.batches.samples import Samples
from pose_rft.body.joints import SMPL24, to_smpl24
from pose_rft.policy.config import IMAGENET_NORM
from pose_rft.policy.params import KeypointTrainingParams
from pose_rft.policy.pose_encoder import ConvVit, soft_argmax
from pose_rft.policy.processor import ImageParams
from pose_rft.seeds import derive, torch_generator
from pose_rft.shards.mixture import Mixture, Source
from pose_rft.training import loop
from pose_rft.training.engine import Engine, EngineParams
from pose_rft.training.loop import StepStats

WARMUP = 0.04
GAIN, TINT = 0.25, 0.6  # widths of the uniform jitter of contrast and of each channel's offset (in deviations)
SPREAD = 0.12  # deviation of a target heatmap, in half crop sides: 1.4 of the sample's 24 cells
DISTANCE = 3.0  # weight of the distance relative to the cross-entropy
SAVE_EVERY = 100
CHUNK = 128
FLIP = list(SMPL24.flip)


@dataclass(frozen=True, eq=False)
class KeypointSet:
    """Crops with keypoints: crops (N, P, P, 3) RGB; points (N, 24, 2) in [-1, 1] over the crop; valid (N, 24) bool."""

    keys: tuple[str, ...]
    crops: Crops
    points: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.points)


def load_keypoints(samples: Samples, image: ImageParams, cache: Path) -> tuple[KeypointSet, list[int]]:
    """Loads crops and keypoints of `samples`, and the rows that have both; crops are cached in `cache`.

    A joint is valid if the release annotates it (confidence above 0), its joint set has SMPL's joint of that name, and
    it lies inside the crop.
    """
    crops = load_crops(samples, image.pose_size, image.box_scale, cache)
    points, valid = np.zeros((len(samples), 24, 2), np.float32), np.zeros((len(samples), 24), bool)
    for row in samples.has_image.nonzero()[:, 0].tolist():
        record = samples.shards.record(row)
        if record.joints2d is None:
            continue
        mapped, known = to_smpl24(record.joints2d.points, record.joints2d.joint_set)
        places = square_of(record, image.box_scale).to_crop(mapped[:, :2])
        valid[row] = known & (mapped[:, 2] > 0) & (np.abs(places) <= 1).all(-1)
        points[row] = np.where(valid[row, :, None], places, 0)
    data = KeypointSet(samples.keys, crops, torch.from_numpy(points), torch.from_numpy(valid))
    return data, data.valid.any(1).nonzero()[:, 0].tolist()


def train(
    encoder: ConvVit,
    sets: Mapping[str, tuple[KeypointSet, list[int]]],
    params: KeypointTrainingParams,
    scratch: Path,
    seed: int,
) -> pl.DataFrame:
    """Trains `encoder` in place and returns the log; images are drawn uniformly from all sets.

    Raises:
        PoseRftError: a loss is not finite.
    """
    optimiser = EngineParams(lr=params.learning_rate, weight_decay=params.weight_decay, warmup=WARMUP)
    engine = Engine(encoder, optimiser, params.steps)
    sources = {name: Source(len(rows), len(rows)) for name, (_, rows) in sets.items()}
    mixture = Mixture(sources, derive(seed, "keypoints"))

    def one_step(step: int) -> StepStats:
        drawn = [mixture.draw(step * params.batch + i) for i in range(params.batch)]
        chosen = {name: [sets[name][1][index] for source, index in drawn if source == name] for name in sorted(sources)}
        parts = [(sets[name][0], rows) for name, rows in chosen.items() if rows]
        x = torch.cat([pixels(data.crops, rows, IMAGENET_NORM) for data, rows in parts])
        points = torch.cat([data.points[rows] for data, rows in parts])
        valid = torch.cat([data.valid[rows] for data, rows in parts])
        x, points, valid = vary(x, points, valid, torch_generator(seed, "keypoints", "vary", step))
        x, points, valid = (t.to(engine.device) for t in (x, points, valid))
        loss = engine.forward(keypoint_loss, x, points, valid)
        engine.backward(loss, [data.keys[row] for data, rows in parts for row in rows])
        norm = engine.step(step)
        return StepStats(float(loss.detach()), params.batch, {"gradient_norm": norm})

    return loop.run(engine, one_step, params.steps, scratch, SAVE_EVERY, "pose_encoder", seed)


def keypoint_loss(encoder: ConvVit, x: Tensor, points: Tensor, valid: Tensor) -> Tensor:
    """Soft-argmax distance, plus cross-entropy between the heatmap and a Gaussian around the joint.

    The distance is the actual objective; the cross-entropy supervises every cell. Together they need fewer steps (8.4
    px against 9.0 px after 200 steps on the sample's 3DPW, 6.2 against 6.8 on Human3.6M).

    Args:
        x: (B, 3, P, P) normalised; points: (B, 24, 2) in [-1, 1]; valid: (B, 24) bool.
    """
    logits = encoder.heatmaps(encoder.features(x)).float()
    error = (soft_argmax(logits)[..., :2] - points).abs().mean(-1)
    height, width = logits.shape[-2:]
    rows, columns = ((torch.arange(n, device=x.device) + 0.5) / n * 2 - 1 for n in (height, width))
    across, down = (
        torch.softmax(-(cells - points[..., axis, None]).square() / (2 * SPREAD**2), -1)
        for axis, cells in ((0, columns), (1, rows))
    )
    target = down[..., :, None] * across[..., None, :]
    entropy = -(target.flatten(2) * logits.flatten(2).log_softmax(-1)).sum(-1)
    total = DISTANCE * error + entropy
    return total.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


def vary(x: Tensor, points: Tensor, valid: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrors half of the crops with their keypoints, and varies contrast and tint.

    Args:
        x: (B, 3, P, P) normalised; points: (B, 24, 2) in [-1, 1]; valid: (B, 24).
    """
    n = len(x)
    flipped = torch.rand(n, generator=generator) < 0.5
    x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    points = torch.where(flipped[:, None, None], points[:, FLIP] * points.new_tensor([-1.0, 1.0]), points)
    valid = torch.where(flipped[:, None], valid[:, FLIP], valid)
    gain = 1 + GAIN * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    tint = TINT * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    return x * gain + tint, points, valid


@torch.no_grad()
def pixel_error(encoder: ConvVit, data: KeypointSet, rows: list[int]) -> float:
    """Mean distance between predicted and true joints, px of the crop, over the valid joints of `rows`."""
    encoder.eval()
    device = next(encoder.parameters()).device
    total, count = 0.0, 0
    for first in range(0, len(rows), CHUNK):
        some = rows[first : first + CHUNK]
        found = encoder.keypoints(pixels(data.crops, some, IMAGENET_NORM).to(device))[..., :2].cpu()
        distance = (found - data.points[some]).norm(dim=-1)[data.valid[some]]
        total, count = total + float(distance.sum()), count + len(distance)
    return total / max(count, 1) * encoder.image_size / 2
