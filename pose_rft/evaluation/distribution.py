"""Measures a policy's pose distribution on one set, with the metrics of `metrics/distribution.py` over 100 draws.

Each is measured twice: as predicted by the policy (what training sampled from), and `calibrated`, as `predict` uses it.
Answers without a pose have no distribution and are left out; `format` counts them. A point head counts as a
distribution without width: best of n and energy score equal its error, and it has no coverage and no density.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pose_rft.body.frames import semantic_frame
from pose_rft.body.rotations import sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.evaluation.joint_readers import JointReader, eval_joints
from pose_rft.inference.answers import Predictions
from pose_rft.metrics import distribution as measures
from pose_rft.metrics.pose_error import mpjpe, pa_mpjpe
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.retrieval.model import TextPoseModel

DRAWS = 100
BEST_OF = (1, 5, 25, 100)
LEVELS = (0.5, 0.68, 0.9)
DIAGRAM = tuple(step / 20 for step in range(1, 20))  # levels of the reliability diagram
POSES_AT_ONCE = 20  # times DRAWS
FEATURE_DRAWS = 10  # per sentence, for FID and diversity


def measured(
    prediction: Predictions,
    calibrated: PoseDistribution,
    truth: Tensor,
    body: BodyModel,
    generator: Callable[[], torch.Generator],
    reads: JointReader = eval_joints,
) -> dict[str, Any]:
    """All metrics of one set, with those of `calibrated` under that key (not for a point); {} if no answer has a pose.

    Args:
        calibrated: the prediction's N distributions with σ scaled (`PoseLlava.calibrated`).
        truth: (N, J, 3) true joints, metres, pelvis-aligned, as returned by `reads`.
        generator: returns a fresh generator in the same state at every call, so that both use the same noise.
    Samples without an SMPL fit only enter the joint metrics (best of n, spread, energy score).
    """
    shown = prediction.has_pose
    if not shown.any():
        return {}
    forms = {"raw": prediction.poses.select(shown)}
    if calibrated is not prediction.poses:
        forms["calibrated"] = calibrated.select(shown)
    examples = [example for example, has in zip(prediction.examples, shown.tolist(), strict=True) if has]
    found = {
        name: _of_joints(poses, truth[shown], body, generator(), reads) | _of_density(poses, examples)
        for name, poses in forms.items()
    }
    return {"samples": len(examples), **found.pop("raw"), **found}


@torch.no_grad()
def _of_joints(
    poses: PoseDistribution, truth: Tensor, body: BodyModel, generator: torch.Generator, reads: JointReader
) -> dict[str, float]:
    """Best of n, spread and energy score, mm."""
    errors: dict[str, list[Tensor]] = {"mpjpe": [], "pa_mpjpe": []}
    between = []
    for part, joints in _drawn_joints(poses, body, generator, reads):
        flat, targets = joints.flatten(0, 1), truth[part].repeat_interleave(joints.shape[1], 0)
        for name, error in (("mpjpe", mpjpe), ("pa_mpjpe", pa_mpjpe)):
            errors[name].append(error(flat, targets).view(joints.shape[:2]))
        between.append(measures.spread(joints))
    by_name = {name: torch.cat(parts) for name, parts in errors.items()}
    found = {
        f"best_of_{n}_{name}": float(measures.best_of(values, min(n, values.shape[1])).mean())
        for name, values in by_name.items()
        for n in BEST_OF
    }
    spread = torch.cat(between)
    score = measures.energy_score(by_name["mpjpe"], spread)
    return found | {"spread": float(spread.mean()), "energy_score": float(score.mean())}


def _drawn_joints(
    poses: PoseDistribution, body: BodyModel, generator: torch.Generator, reads: JointReader
) -> Iterator[tuple[slice, Tensor]]:
    """Yields (slice of samples, their drawn joints (n, S, J, 3)); S is 1 for a point."""
    draws = 1 if poses.log_std is None else DRAWS
    for first in range(0, len(poses), POSES_AT_ONCE):
        part = slice(first, first + POSES_AT_ONCE)
        drawn = poses.select(part).sample(generator, draws)
        joints = reads(body, sixd_to_matrix(drawn.flatten(0, 1).unflatten(-1, (24, 6))), None)
        yield part, joints.unflatten(0, (-1, draws))


def _of_density(poses: PoseDistribution, examples: list[Any]) -> dict[str, Any]:
    """Coverage, z-scores and density at the true 6D numbers of samples with a fit; {} for a point or without fits."""
    fitted = torch.tensor([example.pose6d is not None for example in examples])
    if poses.log_std is None or not fitted.any():
        return {}
    poses = poses.select(fitted)
    known = [example for example in examples if example.pose6d is not None]
    truth = torch.stack([example.pose6d for example in known]).flatten(1)
    counted = torch.stack([example.pose_mask for example in known])
    z = poses.standardised(truth)[counted]  # (labelled joints of all samples, 6)
    levels = measures.interval_level(z)
    regions = measures.region_level(poses.whitened(truth)[counted])
    return {
        **{f"coverage_{round(100 * level)}": measures.coverage(levels, level) for level in LEVELS},
        **{f"joint_coverage_{round(100 * level)}": measures.coverage(regions, level) for level in LEVELS},
        "rms_z": float(z.double().square().mean().sqrt()),
        "nll_per_number": float(-poses.log_prob(truth, counted).double().sum() / z.numel()),
        "reliability": {f"{100 * level:.0f}": measures.coverage(levels, level) for level in DIAGRAM},
    }


@torch.no_grad()
def drawn_features(prediction: Predictions, judge: TextPoseModel, generator: torch.Generator) -> dict[str, float]:
    """FID and diversity of poses drawn from sentences, in the judge's feature space; FID against the true poses.

    Ten draws per sentence (one for a point); `true_diversity` is that of the true poses. {} with fewer than two poses.
    """
    shown = prediction.has_pose
    if int(shown.sum()) < 2:
        return {}
    poses = prediction.poses.select(shown)
    drawn = poses.sample(generator, 1 if poses.log_std is None else FEATURE_DRAWS).flatten(0, 1)
    true = torch.stack([example.pose6d for example in prediction.examples if example.pose6d is not None])

    def features(sixd: Tensor) -> Tensor:
        return judge.embed_pose(semantic_frame(sixd_to_matrix(sixd.view(-1, 24, 6)), "camera")).cpu()

    own, truth = features(drawn), features(true)
    return {
        "fid": measures.frechet_distance(own, truth),
        "diversity": measures.diversity(own),
        "true_diversity": measures.diversity(truth),
    }
