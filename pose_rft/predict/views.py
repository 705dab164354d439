"""Averages several views of each person (the square, a larger, a smaller, two rotated ones) into one observation.

The landmark network's errors differ from view to view, so the mean of each number over the views is closer to the truth
than a single view (measured in docs/photographs.md). The policy reads the mean like any other observation. The maps
cannot be transferred between views; they are those of the square itself.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pose_rft.policy.blazepose import LANDMARKS, NUMBERS, BlazePose
from pose_rft.policy.config import IMAGENET_NORM
from pose_rft.policy.person_crops import normalise
from pose_rft.predict.people import CROP
from pose_rft.predict.regions import Region

VIEWS = ((1.0, 0.0), (1.15, 0.0), (0.88, 0.0), (1.0, 10.0), (1.0, -10.0))
"""Side relative to the region's, and rotation of the square in degrees."""


@torch.no_grad()
def observe(encoder: BlazePose, people: Sequence[tuple[NDArray[np.uint8], Region]]) -> Tensor:
    """Returns (B, 1, W) observations of B regions, each of a picture (H, W, 3), like `BlazePose.observe` of crops."""
    cut = [(view, view.cut(pixels, CROP)) for pixels, region in people for view in _views(region)]
    crops = normalise(np.stack([crop for _, crop in cut]), IMAGENET_NORM)
    seen = encoder.observe(crops.to(next(encoder.parameters())))[:, 0].unflatten(0, (len(people), len(VIEWS)))
    maps, landmarks = seen.split([2 * encoder.maps, seen.shape[-1] - 2 * encoder.maps], -1)
    means = [
        torch.stack([into(region, view, one) for view, one in zip(_views(region), own, strict=True)]).mean(0)
        for (_, region), own in zip(people, landmarks, strict=True)
    ]
    return torch.cat([maps[:, 0], torch.stack(means)], 1)[:, None]


def _views(region: Region) -> list[Region]:
    return [Region(region.center, scale * region.side, region.angle + np.radians(turn)) for scale, turn in VIEWS]


def into(region: Region, view: Region, seen: Tensor) -> Tensor:
    """Maps the (33 · 8 + 1) numbers of the square `view` to the coordinates of `region`, which has the same centre."""
    turn = torch.from_numpy(view.axes().T @ region.axes()).to(seen)
    zoom = view.side / region.side
    points = seen[:-1].unflatten(0, (len(LANDMARKS), NUMBERS)).clone()
    points[:, :2] = zoom * points[:, :2] @ turn
    points[:, 2] *= zoom
    points[:, 5:7] = points[:, 5:7] @ turn
    return torch.cat([points.flatten(), seen[-1:]])
