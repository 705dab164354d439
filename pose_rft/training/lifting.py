"""Trains the lifter behind a frozen landmark network: from landmarks and maps to SMPL's pose.

Landmarks and maps come from the network, run on the training crops and their mirror images (`observed.py`), so they
have the errors that the lifter will meet. Landmarks are augmented with effects too rare in the crops: people are
rotated in the image plane, points jitter, and truncated or occluded parts are guessed badly and marked as unseen. Maps
cannot be rotated or cut: people shown with maps are not augmented, and the others teach the lifter to do without.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pose_rft.batches.samples import Samples
from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import matrix_to_sixd, mirror_rotations, sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.metrics.pose_error import mpjpe, pa_mpjpe
from pose_rft.policy.blazepose import FOUND, BlazePose, Lifter
from pose_rft.policy.params import LifterTrainingParams
from pose_rft.seeds import derive, torch_generator
from pose_rft.shards.mixture import Mixture, Source
from pose_rft.training import loop
from pose_rft.training.engine import Engine, EngineParams
from pose_rft.training.loop import StepStats
from pose_rft.training.losses import masked_mean

WARMUP = 0.04
SAVE_EVERY = 500
CHUNK = 1024
FLIP = list(SMPL24.flip)
LEAN, ROLLED = 0.35, 0.15  # deviation of most people's rotation, radians; share rotated by any angle
JITTER = 0.01  # deviation of a landmark's position, relative to the person's spread; of its world position in metres
WITH_MAPS = 0.6  # share of people shown with their maps and without augmentation
CUT = 0.12  # share of people who are truncated
SMALLEST_DEVIATION = 0.05  # of a value in the maps: a near-constant one must not be amplified
GUESS = 0.25  # deviation of a truncated landmark's position, in half crop sides; of its world position 0.6 x, in m


@dataclass(frozen=True, eq=False)
class LiftingSet:
    """N people: observed landmarks (N, 33, 8) and maps (N, 2, M), their labels, and the keys of their samples.

    rotations: (N, 24, 3, 3); joints: (N, 24, 3) m, camera frame, pelvis at 0, mean shape; labelled: (N, 24) bool."""

    keys: tuple[str, ...]
    landmarks: Tensor
    maps: Tensor
    rotations: Tensor
    joints: Tensor
    labelled: Tensor

    def __len__(self) -> int:
        return len(self.landmarks)


def lifting_set(encoder: BlazePose, samples: Samples, seen: np.ndarray, body: BodyModel, flip: bool) -> LiftingSet:
    """The labelled people of a set whom the network found; `seen`: the set's observations, mirrored if `flip`.

    Landmarks of a person who was not found carry no information and would teach the lifter to guess elsewhere too.
    """
    pictured = samples.has_image.nonzero()[:, 0]
    found = torch.from_numpy(np.asarray(seen[:, 0, -1], dtype=np.float32)) >= FOUND
    usable = samples.labelled[pictured].any(1) & found
    rows = pictured[usable]
    landmarks, maps = encoder.parts(torch.from_numpy(np.asarray(seen[usable.numpy()])))
    rotations, labelled = samples.rotations[rows], samples.labelled[rows]
    joints = torch.cat([body.joints(chunk) for chunk in rotations.split(CHUNK)])
    joints = joints - joints[:, :1]
    if flip:
        rotations, labelled = mirror_rotations(rotations), labelled[:, FLIP]
        joints = joints[:, FLIP] * joints.new_tensor([-1.0, 1.0, 1.0])
    keys = tuple(samples.keys[row] for row in rows.tolist())
    return LiftingSet(keys, landmarks.float(), maps, rotations, joints, labelled)


def train(
    lifter: Lifter,
    sets: Mapping[str, LiftingSet],
    body: BodyModel,
    params: LifterTrainingParams,
    scratch: Path,
    seed: int,
) -> pl.DataFrame:
    """Trains `lifter` in place and returns the log; people are drawn uniformly from all sets.

    Raises:
        PoseRftError: a loss is not finite.
    """
    optimiser = EngineParams(lr=params.learning_rate, weight_decay=params.weight_decay, warmup=WARMUP)
    engine = Engine(lifter.requires_grad_(True), optimiser, params.steps)
    body.to(engine.device)
    mixture = Mixture({name: Source(len(data), len(data)) for name, data in sets.items()}, derive(seed, "lifter"))

    def one_step(step: int) -> StepStats:
        drawn = [mixture.draw(step * params.batch + i) for i in range(params.batch)]
        chosen = {name: [index for source, index in drawn if source == name] for name in sorted(sets)}
        parts = [(sets[name], rows) for name, rows in chosen.items() if rows]
        landmarks, maps, rotations, joints, labelled = (
            torch.cat([getattr(data, field)[rows] for data, rows in parts]).to(engine.device)
            for field in ("landmarks", "maps", "rotations", "joints", "labelled")
        )
        generator = torch_generator(seed, "lifter", "vary", step)
        seen, varied = (landmarks, rotations, joints), turned(landmarks, rotations, joints, generator)
        varied = (spoiled(varied[0], generator), *varied[1:])
        shown = (torch.rand(len(maps), generator=generator) < WITH_MAPS).to(engine.device)
        landmarks, rotations, joints = (
            torch.where(shown.view(-1, *[1] * (one.dim() - 1)), one, other)
            for one, other in zip(seen, varied, strict=True)
        )
        maps = torch.where(shown[:, None, None], maps, 0).to(landmarks.dtype)
        loss = engine.forward(lifting_loss, landmarks, maps, rotations, joints, labelled, body, params)
        engine.backward(loss, [data.keys[row] for data, rows in parts for row in rows])
        norm = engine.step(step)
        return StepStats(float(loss.detach()), params.batch, {"gradient_norm": norm})

    return loop.run(engine, one_step, params.steps, scratch, SAVE_EVERY, "lifter", seed)


def lifting_loss(
    lifter: Lifter,
    landmarks: Tensor,
    maps: Tensor,
    rotations: Tensor,
    joints: Tensor,
    labelled: Tensor,
    body: BodyModel,
    params: LifterTrainingParams,
) -> Tensor:
    """Weighted mean error of rotation matrices and joints, where labelled; shapes as in `LiftingSet`."""
    found = sixd_to_matrix(lifter(landmarks, maps).unflatten(-1, (len(SMPL24), 6)))
    rotation = masked_mean((found - rotations).abs().mean((-1, -2)), labelled)
    reached = body.joints(torch.where(labelled[..., None, None], found, rotations))
    position = (reached - reached[:, :1] - joints).abs().mean((-1, -2))
    return (params.rotation * rotation + params.joints * position).mean()


def turned(
    landmarks: Tensor, rotations: Tensor, joints: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotates each person in the image plane, most slightly, some by any angle; shapes as in `LiftingSet`."""
    n = len(landmarks)
    angle = LEAN * torch.randn(n, generator=generator)
    anywhere = (2 * torch.rand(n, generator=generator) - 1) * math.pi
    angle = torch.where(torch.rand(n, generator=generator) < ROLLED, anywhere, angle).to(landmarks.device)
    turn = torch.zeros(n, 3, 3, device=landmarks.device)
    turn[:, 0, 0], turn[:, 0, 1] = angle.cos(), -angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = angle.sin(), angle.cos()
    turn[:, 2, 2] = 1
    places, seen, world = landmarks[..., :3] @ turn.mT, landmarks[..., 3:5], landmarks[..., 5:] @ turn.mT
    root = turn[:, None] @ rotations[:, :1]
    return torch.cat([places, seen, world], -1), torch.cat([root, rotations[:, 1:]], 1), joints @ turn.mT


def spoiled(landmarks: Tensor, generator: torch.Generator) -> Tensor:
    """Degrades landmarks (B, 33, 8): jitters all, and for some people replaces those beyond a line by bad guesses."""
    n, points = landmarks.shape[:2]
    device = landmarks.device

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    places, seen, world = landmarks[..., :3], landmarks[..., 3:5], landmarks[..., 5:]
    spread = places[..., :2].std(1).mean(-1)[:, None, None]
    direction = noise(n, 2)
    along = (places[..., :2] @ torch.nn.functional.normalize(direction, dim=-1)[..., None])[..., 0]
    low, high = along.amin(1, keepdim=True), along.amax(1, keepdim=True)
    line = low + (0.35 + 0.6 * torch.rand(n, 1, generator=generator).to(device)) * (high - low)
    cut = (along > line) & (torch.rand(n, 1, generator=generator).to(device) < CUT)
    guess = torch.where(cut, GUESS, 0.0)[..., None]
    places = places + (JITTER * spread + guess) * noise(n, points, 3)
    world = world + (JITTER + 0.6 * guess) * noise(n, points, 3)
    unseen = 0.3 * torch.rand(n, points, 2, generator=generator).to(device)
    return torch.cat([places, torch.where(cut[..., None], unseen, seen), world], -1)


@torch.no_grad()
def joint_errors(encoder: BlazePose, data: LiftingSet, body: BodyModel) -> dict[str, float]:
    """mpjpe and pa_mpjpe in mm over SMPL's 24 joints on the mean shape: a quick check, not the protocol of Table 1."""
    encoder.eval()
    chunks = zip(data.landmarks.split(CHUNK), data.maps.float().split(CHUNK), strict=True)
    found = torch.cat([encoder.lifter.both_ways(landmarks, maps) for landmarks, maps in chunks])
    reached = body.joints(sixd_to_matrix(found.unflatten(-1, (len(SMPL24), 6))))
    reached = reached - reached[:, :1]
    return {
        name: float(error(reached, data.joints).mean()) for name, error in (("mpjpe", mpjpe), ("pa_mpjpe", pa_mpjpe))
    }


def set_means(lifter: Lifter, mean: Tensor, sets: Iterable[LiftingSet]) -> None:
    """Initialises the lifter with the mean pose (24, 3, 3) and the mean and deviation of the maps of `sets`."""
    maps = torch.cat([data.maps[(data.maps != 0).flatten(1).any(1)].flatten(0, 1).float() for data in sets])
    with torch.no_grad():
        lifter.mean_pose.copy_(matrix_to_sixd(mean).flatten())
        if len(maps):
            lifter.maps_mean.copy_(maps.mean(0))
            lifter.maps_scale.copy_(maps.std(0) + SMALLEST_DEVIATION)
