"""Several looks at each person: the square itself, a larger, a smaller and two slightly turned ones, one observation.

The landmark network's errors differ from view to view, so the mean of each number over the views is nearer to the
truth than one view (measured in docs/results.md). The policy reads a person from it as from any other observation.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pose_rft.policy.blazepose import LANDMARKS, NUMBERS, BlazePose
from pose_rft.policy.person_crops import IMAGENET_NORM, normalise
from pose_rft.predict.people import CROP
from pose_rft.predict.regions import Region

VIEWS = ((1.0, 0.0), (1.15, 0.0), (0.88, 0.0), (1.0, 10.0), (1.0, -10.0))
"""Side over the region's, and degrees by which the square is turned."""


@torch.no_grad()
def observe(encoder: BlazePose, pixels: NDArray[np.uint8], regions: Sequence[Region]) -> Tensor:
    """(B, 1, 33 · 8 + 1) observations of B regions of a picture (H, W, 3), as `BlazePose.observe` of their crops."""
    return torch.stack([_observe(encoder, pixels, region) for region in regions])


def _observe(encoder: BlazePose, pixels: NDArray[np.uint8], region: Region) -> Tensor:
    views = [Region(region.center, scale * region.side, region.angle + np.radians(turn)) for scale, turn in VIEWS]
    crops = normalise(np.stack([view.cut(pixels, CROP) for view in views]), IMAGENET_NORM)
    seen = encoder.observe(crops.to(next(encoder.parameters())))[:, 0]
    back = torch.stack([into(region, view, one) for view, one in zip(views, seen, strict=True)])
    return back.mean(0)[None]


def into(region: Region, view: Region, seen: Tensor) -> Tensor:
    """(33 · 8 + 1) as seen in the square `view` → the same as it lies in `region`, whose centre is the same."""
    turn = torch.from_numpy(view.axes().T @ region.axes()).to(seen)
    zoom = view.side / region.side
    points = seen[:-1].unflatten(0, (len(LANDMARKS), NUMBERS)).clone()
    points[:, :2] = zoom * points[:, :2] @ turn
    points[:, 2] *= zoom
    points[:, 5:7] = points[:, 5:7] @ turn
    return torch.cat([points.flatten(), seen[-1:]])
