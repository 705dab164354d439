"""What labels of any release can be: numbers that are not damage, points that are known, genders of bodies."""

from collections.abc import Mapping

import numpy as np

from pose_rft.body.model_file import Gender

GENDERS: Mapping[str, Gender] = {"male": "male", "female": "female", "neutral": "neutral"}
LARGEST_NUMBER = 1e6  # px, metres or radians; above it, or not finite, a number is damage


def plausible(numbers: np.ndarray) -> np.ndarray:
    """Which numbers can be labels at all."""
    with np.errstate(invalid="ignore"):
        return np.abs(numbers) < LARGEST_NUMBER


def labelled(points: np.ndarray) -> np.ndarray | None:
    """Joints (J, C) with confidence last; those without a label or with damaged numbers are zeroed; None if all are."""
    known = (points[:, -1] > 0) & plausible(points).all(axis=1)
    return np.where(known[:, None], points, 0.0) if known.any() else None
