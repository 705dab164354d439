"""Joint errors of Table 1 and of the joint reward (paper eq. 7): MPJPE and PA-MPJPE; and MPJRE, for rotations.

The caller chooses the joints and their origin: `BodyModel.eval_joints` gives the 14 pelvis-aligned joints of Table 1.
Nothing here centres the joints, so that a position error is never hidden.
"""

import math

import torch
from torch import Tensor

from pose_rft.body.rotations import geodesic_angle

MILLIMETRES = 1000.0


def mpjpe(pred: Tensor, target: Tensor) -> Tensor:
    """Mean distance between the joints of each sample.

    Args:
        pred, target: (B, J, 3) joints, metres, the same frame and origin.
    Returns:
        (B,) millimetres.
    Raises:
        ValueError: the shapes differ or are not (B, J, 3).
    """
    _check(pred, target)
    return (pred - target).norm(dim=-1).mean(dim=-1) * MILLIMETRES


def pa_mpjpe(pred: Tensor, target: Tensor) -> Tensor:
    """Mean joint distance after the best similarity alignment of each sample.

    Args:
        pred, target: (B, J, 3) joints, metres, any frame.
    Returns:
        (B,) millimetres.
    Raises:
        ValueError: the shapes differ, or fewer than 3 joints.
    Convention: with scale, without reflection (HMR2 `pose_utils`).
    """
    _check(pred, target)
    if pred.shape[1] < 3:
        raise ValueError(f"alignment needs 3 joints, got {pred.shape[1]}")
    return mpjpe(similarity_align(pred, target), target)


def similarity_align(pred: Tensor, target: Tensor) -> Tensor:
    """`pred` (B, J, 3) translated, rotated and scaled to the least-squares fit of `target` (B, J, 3).

    Source: Umeyama 1991. The sign of the last singular direction excludes reflections, so that a mirrored pose does
    not fit.
    """
    pred_centre, target_centre = pred.mean(dim=1, keepdim=True), target.mean(dim=1, keepdim=True)
    # Double precision: the singular vectors of nearly planar poses (arms and legs in one plane) are ill-conditioned.
    x, y = (pred - pred_centre).double(), (target - target_centre).double()
    u, s, vh = torch.linalg.svd(x.transpose(1, 2) @ y)
    sign = torch.ones_like(s)
    sign[:, 2] = torch.linalg.det(u @ vh).sign()
    rotation = (u * sign[:, None, :]) @ vh  # row vectors: aligned = x @ rotation
    spread = x.square().sum(dim=(1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
    scale = (s * sign).sum(dim=-1) / spread
    return (scale[:, None, None] * (x @ rotation)).to(pred.dtype) + target_centre


def mpjre(pred: Tensor, target: Tensor) -> Tensor:
    """Mean angle between the local rotations of the joints of each sample.

    Args:
        pred, target: (B, J, 3, 3).
    Returns:
        (B,) degrees.
    """
    return geodesic_angle(pred, target).mean(dim=-1) * (180.0 / math.pi)


def _check(pred: Tensor, target: Tensor) -> None:
    if pred.shape != target.shape or pred.ndim != 3 or pred.shape[-1] != 3:
        raise ValueError(f"expected two (B, J, 3) tensors, got {tuple(pred.shape)} and {tuple(target.shape)}")
