"""Where the camera stands: the translation that puts a predicted body onto 2D keypoints.

The policy predicts rotations only, so the overlay needs a place for the body. With a given focal length the projection
of every joint is linear in the translation, so weighted least squares gives it in closed form.
"""

import numpy as np


def fit_translation(joints: np.ndarray, keypoints: np.ndarray, weights: np.ndarray, K: np.ndarray) -> np.ndarray:
    """The translation t (3,) metres, camera frame, for which `project(joints + t)` is nearest to `keypoints`.

    Args:
        joints: (J, 3) metres, camera axes, any origin.
        keypoints: (J, 2) px; weights: (J,) >= 0, at least two of them positive.
        K: (3, 3) px.
    Raises:
        ValueError: fewer than two joints have a weight.
    Source: each joint gives (u - cx) (z + tz) = fx (x + tx) and the same for v; algebraic error, as in DLT.
    """
    if int((weights > 0).sum()) < 2:
        raise ValueError("a camera needs at least two keypoints")
    rays = (keypoints - K[:2, 2]) / np.array([K[0, 0], K[1, 1]])
    rows, targets = [], []
    for axis in (0, 1):
        row = np.zeros((len(joints), 3))
        row[:, axis] = 1.0
        row[:, 2] = -rays[:, axis]
        rows.append(row * weights[:, None])
        targets.append((rays[:, axis] * joints[:, 2] - joints[:, axis]) * weights)
    solution, *_ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)
    return solution


def fit_box(joints: np.ndarray, center: np.ndarray, side: float, K: np.ndarray) -> np.ndarray:
    """The translation t (3,) that centres the body in a box (centre, side; px) and makes it about 80 % of the side."""
    extent = (joints.max(0) - joints.min(0))[:2].max()
    depth = K[0, 0] * extent / (0.8 * side)
    middle = (joints.max(0) + joints.min(0)) / 2
    ray = (center - K[:2, 2]) / np.array([K[0, 0], K[1, 1]])
    return np.array([ray[0] * depth - middle[0], ray[1] * depth - middle[1], depth - middle[2]])


def default_intrinsics(width: int, height: int) -> np.ndarray:
    """K (3, 3) for a photograph of unknown camera: focal length of one image diagonal (about 53 degrees of view)."""
    focal = float(np.hypot(width, height))
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
