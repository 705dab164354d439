"""The loss of both retrieval models."""

import torch
from torch import Tensor
from torch.nn import functional

from pose_rft.metrics.recall import TABLE_2_KS, mean_recall, recall_at


def symmetric_bbc(texts: Tensor, poses: Tensor, scale: Tensor) -> Tensor:
    """Batch-based classification in both directions: of the pose for each text, and of the text for each pose.

    Args:
        texts, poses: (B, D) of length 1, matched by row. scale: learned factor on the scores, starts at 10.
    Source: PoseScript `loss.py` (symBBC).
    """
    scores = scale * texts @ poses.T
    own = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2


def validation_recall(texts: Tensor, poses: Tensor) -> float:
    """Mean recall over K = 5, 10, 20 and both directions, percent; selects the best weights."""
    scores = texts @ poses.T
    return (mean_recall(recall_at(scores, TABLE_2_KS, "t2p")) + mean_recall(recall_at(scores, TABLE_2_KS, "p2t"))) / 2
