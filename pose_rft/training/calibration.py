"""Post-hoc calibration: scales each joint's σ so that its 90 % intervals contain 90 % of validation data.

The factors are fitted once, after SFT or RFT, on sets used neither for training nor for testing (`calibration` in
params.yaml), separately for images and text, and kept in the policy's config.json. Mean pose and training ignore them.
"""

from collections.abc import Iterator, Mapping

import torch

from pose_rft.batches.collate import Collator
from pose_rft.batches.examples import IMAGE_TASKS, Example, ExampleMaker, ExampleParams, Task
from pose_rft.batches.feature_cache import ImageTokenSource
from pose_rft.batches.samples import Samples
from pose_rft.body.smpl import BodyModel
from pose_rft.inference.heldout import CHUNK, template_poses
from pose_rft.metrics.distribution import sigma_scales
from pose_rft.policy.calibration import Asked
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.processor import PoseProcessor
from pose_rft.seeds import numpy_rng


@torch.no_grad()
def calibrate(
    model: PoseLlava,
    processor: PoseProcessor,
    body: BodyModel,
    sets: Mapping[tuple[Task, str], Samples],
    image_tokens: ImageTokenSource,
    most: int,
    seed: int,
) -> None:
    """Sets `model.config.sigma_scale` from the pose distributions after the template answer on validation samples.

    Args:
        sets: {(task, name): samples}; at most `most` of each are used, evenly spaced. Images (or text) stay
            uncalibrated if they have no set, and so does a point head.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    collator = Collator(processor)
    found: dict[Asked, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for (task, name), samples in sets.items() if model.config.pose_head == "gaussian" else ():
        z, counted = found.setdefault("image" if task in IMAGE_TASKS else "text", ([], []))
        for examples in _chunks(task, name, samples, processor, body, most, seed):
            batch = collator(examples).to(device)
            tokens = image_tokens(batch.image_refs).to(device) if batch.image_refs else None
            z.append(template_poses(model, batch, tokens).standardised(batch.pose6d).cpu())
            counted.append(batch.pose_mask.cpu())
    scales = {asked: sigma_scales(torch.cat(z), torch.cat(counted)).tolist() for asked, (z, counted) in found.items()}
    model.config.sigma_scale = {asked: [round(one, 6) for one in scale] for asked, scale in scales.items()} or None
    model.train(training)


def _chunks(
    task: Task, name: str, samples: Samples, processor: PoseProcessor, body: BodyModel, most: int, seed: int
) -> Iterator[list[Example]]:
    params = ExampleParams(mixture={task: {name: 1.0}}, human_captions=1.0)  # the captions used in testing
    maker = ExampleMaker(samples, task, processor, body, params)
    rows = maker.rows[:: max(1, -(-len(maker.rows) // most))]
    for first in range(0, len(rows), CHUNK):
        yield [maker.make(row, numpy_rng(seed, "calibration", name, row)) for row in rows[first : first + CHUNK]]
