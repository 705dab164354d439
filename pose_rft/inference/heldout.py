"""A quick held-out check of a policy at the end of SFT: does it beat the mean pose, and does it answer in the template?

These are not the paper's tables (see `evaluation/`): 24 joints, poses read after the template answer instead of a free
one, and a limited number of samples. The training set's mean pose is the baseline.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pose_rft.batches.collate import Batch, Collator
from pose_rft.batches.examples import Example, ExampleMaker, ExampleParams, Task
from pose_rft.batches.feature_cache import ImageTokenSource
from pose_rft.batches.samples import Samples
from pose_rft.body.rotations import sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.inference.sampling import generate
from pose_rft.metrics.pose_error import mpjpe, pa_mpjpe
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.policy.processor import PoseProcessor
from pose_rft.seeds import numpy_rng

CHUNK = 64
LONGEST_ANSWER = 24  # tokens; the template has about a dozen


def heldout_metrics(
    model: PoseLlava,
    processor: PoseProcessor,
    body: BodyModel,
    sets: Mapping[tuple[Task, str], Samples],
    image_tokens: ImageTokenSource,
    most: int,
    seed: int,
) -> dict[str, float]:
    """`TASK/SET/…`: mpjpe and pa_mpjpe (mm) of the answer's mean pose and of the training set's mean pose, the ratio
    of the two MPJPEs, and the percentage of greedy answers that match the pose template.

    Args:
        sets: {(task, name): samples}; uses `most` samples of each, evenly spaced.
    """
    model.eval()
    device = next(model.parameters()).device
    collator = Collator(processor)
    found: dict[str, float] = {}
    for (task, name), samples in sets.items():
        maker = ExampleMaker(samples, task, processor, body, ExampleParams(mixture={task: {name: 1.0}}))
        rows = maker.rows[:: max(1, -(-len(maker.rows) // most))]
        examples = [maker.make(row, numpy_rng(seed, "heldout", name, row)) for row in rows]
        predicted, good = _answers(model, processor, collator, examples, image_tokens, device)
        rotations = sixd_to_matrix(torch.stack([e.pose6d for e in examples if e.pose6d is not None]))
        with torch.no_grad():
            truth = centred(body.joints(rotations, samples.betas[rows]))
            constant = model.pose_head.mean_pose.float().cpu().view(1, 24, 6)
            mean = centred(body.joints(sixd_to_matrix(constant))).expand_as(truth)
            pose = centred(body.joints(sixd_to_matrix(predicted)))
        values = {
            "mpjpe": float(mpjpe(pose, truth).mean()),
            "pa_mpjpe": float(pa_mpjpe(pose, truth).mean()),
            "mean_pose_mpjpe": float(mpjpe(mean, truth).mean()),
            "mean_pose_pa_mpjpe": float(pa_mpjpe(mean, truth).mean()),
            "format": 100 * good / len(examples),
            "samples": len(examples),
        }
        values["ratio"] = values["mpjpe"] / values["mean_pose_mpjpe"]
        found |= {f"{task}/{name}/{key}": value for key, value in values.items()}
    return found


def _answers(
    model: PoseLlava,
    processor: PoseProcessor,
    collator: Collator,
    examples: list[Example],
    image_tokens: ImageTokenSource,
    device: torch.device,
) -> tuple[Tensor, int]:
    """The mean poses after the template answer, (N, 24, 6) on the CPU, and how many greedy answers match it."""
    poses, good = [], 0
    for first in range(0, len(examples), CHUNK):
        batch = collator(examples[first : first + CHUNK]).to(device)
        tokens = image_tokens(batch.image_refs).to(device) if batch.image_refs else None
        with torch.no_grad():
            mean = template_poses(model, batch, tokens).mean
        poses.append(mean.unflatten(-1, (24, 6)).cpu())
        prompts = [processor.prompt_ids(e.question, e.image is not None) for e in batch.examples]
        answers = generate(model, prompts, tokens, 1, LONGEST_ANSWER, temperature=0.0)
        good += sum(processor.answer_is_pose(answers.answer(row, 0)) for row in range(len(prompts)))
    return torch.cat(poses), good


def template_poses(model: PoseLlava, batch: Batch, tokens: ImageTokens | None) -> PoseDistribution:
    """The pose distributions of a batch, teacher-forced with the template answers."""
    out = model(batch.input_ids, batch.attention_mask, image_tokens=tokens, logits_to_keep=1)
    hidden = out.hidden_states[batch.pose_rows, batch.pose_positions]
    return model.pose_distribution(hidden, out.pose_start[batch.pose_rows])


def centred(joints: Tensor) -> Tensor:
    """(N, 24, 3) with the pelvis at the origin."""
    return joints - joints[:, :1]
