"""Losses of supervised pretraining: the answer's tokens, and the pose (ChatPose's L1, plus a likelihood for `+ Dist.`).

    L = answer · CE + rotation · (mean |ΔR_body| + mean |ΔR_root|) [+ nll · NLL per number] [+ joints · mean |ΔJ|]

Table 3's "Baseline" is the point head with the first two terms; "+ Dist." adds the likelihood of the Gaussian. The term
on joint positions is not in the paper and is off by default.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pose_rft.body.rotations import sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.params import NonNegative, Section
from pose_rft.policy.pose_head import PoseDistribution

ROOT, BODY = slice(0, 1), slice(1, 24)


class LossParams(Section):
    """Loss weights. ChatPose: answer 1, rotation 0.1. nll: Gaussian head only. joints: per metre, off by default."""

    answer: NonNegative = 1.0
    rotation: NonNegative
    nll: NonNegative = 0.1  # no published value
    joints: NonNegative = 0.0


class PoseLosses(NamedTuple):
    """Loss terms, (P,) each, one per pose; nll and joints are None if the head or the params have no such term."""

    rotation: Tensor
    nll: Tensor | None
    joints: Tensor | None

    def total(self, params: LossParams) -> Tensor:
        """(P,) weighted sum."""
        total = params.rotation * self.rotation
        if self.nll is not None:
            total = total + params.nll * self.nll
        if self.joints is not None:
            total = total + params.joints * self.joints
        return total


def pose_losses(
    predicted: PoseDistribution, pose6d: Tensor, mask: Tensor, joints: Tensor, params: LossParams, body: BodyModel
) -> PoseLosses:
    """Computes the loss terms of every pose.

    Args:
        pose6d: (P, 144), root in the camera frame; mask: (P, 24) bool, labelled joints;
        joints: (P, 24, 3) metres, camera frame, pelvis at the origin.
    Convention: body and root are averaged separately, so that the root counts as much as all other joints together
        (ChatPose); an unlabelled joint contributes nothing to any term.
    """
    mean = sixd_to_matrix(predicted.mean.unflatten(-1, (24, 6)))
    target = sixd_to_matrix(pose6d.unflatten(-1, (24, 6)))
    error = (mean - target).abs().mean((-1, -2))  # (P, 24)
    rotation = masked_mean(error[:, BODY], mask[:, BODY]) + masked_mean(error[:, ROOT], mask[:, ROOT])
    nll = None
    if predicted.log_std is not None:
        nll = -predicted.log_prob(pose6d, mask) / (6 * mask.sum(-1)).clamp(min=1)
    position = None
    if params.joints:
        reached = body.joints(torch.where(mask[..., None, None], mean, target))
        position = (reached - reached[:, :1] - joints).abs().mean((-1, -2))
    return PoseLosses(rotation, nll, position)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last axis where `mask` holds; 0 where it holds nowhere."""
    return values.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def answer_losses(logits: Tensor, labels: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Cross-entropy of each answer: (B,), mean over its tokens.

    Args:
        logits: (N, vocabulary) at the N scored positions; labels: (N,) the tokens there; rows: (N,) their batch rows.
    """
    loss = F.cross_entropy(logits.float(), labels, reduction="none")
    count = torch.zeros(n_rows, device=loss.device).index_add_(0, rows, torch.ones_like(loss))
    return torch.zeros(n_rows, device=loss.device).index_add_(0, rows, loss) / count.clamp(min=1)
