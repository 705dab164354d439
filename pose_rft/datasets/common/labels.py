"""Checks that apply to the labels of any release: plausible numbers, labelled points, body genders."""

from collections.abc import Mapping

import numpy as np

from pose_rft.body.model_file import Gender

GENDERS: Mapping[str, Gender] = {"male": "male", "female": "female", "neutral": "neutral"}
LARGEST_NUMBER = 1e6  # px, metres or radians; larger or non-finite numbers mean damaged data


def plausible(numbers: np.ndarray) -> np.ndarray:
    """Returns which numbers are small enough, and finite, to be labels."""
    with np.errstate(invalid="ignore"):
        return np.abs(numbers) < LARGEST_NUMBER


def labelled(points: np.ndarray) -> np.ndarray | None:
    """Zeroes unlabelled or damaged joints of (J, C), confidence last; returns None if no joint is left."""
    known = (points[:, -1] > 0) & plausible(points).all(axis=1)
    return np.where(known[:, None], points, 0.0) if known.any() else None
