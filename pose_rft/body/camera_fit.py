"""Camera translation: fits the projection of a predicted body to 2D keypoints.

The policy predicts rotations only, so the overlay needs a position for the body. For a known focal length, each joint
gives equations linear in the translation; weighted least squares solves them in closed form. `refine_translation` then
minimises image distances robustly: joints that a wrong pose places far away lose their influence.
"""

import numpy as np

TOLERANCE = 0.03  # of a person's extent: joints that lie farther from their keypoint count for little
REFINEMENTS = 15


def fit_translation(joints: np.ndarray, keypoints: np.ndarray, weights: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Returns the translation t (3,) metres, camera frame, that fits `project(joints + t)` to `keypoints`.

    Args:
        joints: (J, 3) metres, camera axes, any origin.
        keypoints: (J, 2) px; weights: (J,) >= 0, at least two of them positive.
        K: (3, 3) px.
    Raises:
        ValueError: fewer than two joints have a positive weight.
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


def refine_translation(
    joints: np.ndarray, keypoints: np.ndarray, weights: np.ndarray, K: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Refines `start` to a translation that most joints agree with; arguments as in `fit_translation`.

    Minimises Cauchy's robust loss of the distances; its scale is `TOLERANCE` times the keypoints' larger extent.
    Returns `start` if a step would move a joint behind the camera.

    Source: Gauss-Newton with weights updated in every step (iteratively reweighted least squares).
    """
    size = float(np.ptp(keypoints, axis=0).max())
    focal, transl = np.array([K[0, 0], K[1, 1]]), start
    for _ in range(REFINEMENTS):
        placed = joints + transl
        depth = placed[:, 2]
        if size <= 0 or depth.min() <= 0:
            return start
        apart = (focal * placed[:, :2] / depth[:, None] + K[:2, 2] - keypoints) / size
        trust = weights / (1 + (apart**2).sum(1) / TOLERANCE**2)
        slopes = np.zeros((len(joints), 2, 3))  # of `apart` by the translation
        slopes[:, 0, 0] = slopes[:, 1, 1] = 1 / depth
        slopes[:, :, 2] = -placed[:, :2] / depth[:, None] ** 2
        slopes *= focal[:, None] / size
        trusted = slopes * trust[:, None, None]
        normal = np.einsum("jak,jal->kl", slopes, trusted)
        step, *_ = np.linalg.lstsq(normal, np.einsum("jak,ja->k", trusted, apart), rcond=None)
        transl = transl - step
    return transl if (joints + transl)[:, 2].min() > 0 else start


def fit_box(joints: np.ndarray, center: np.ndarray, side: float, K: np.ndarray) -> np.ndarray:
    """Returns the translation t (3,) that centres the body in a box (centre, side; px) at about 80 % of the side."""
    extent = (joints.max(0) - joints.min(0))[:2].max()
    depth = K[0, 0] * extent / (0.8 * side)
    middle = (joints.max(0) + joints.min(0)) / 2
    ray = (center - K[:2, 2]) / np.array([K[0, 0], K[1, 1]])
    return np.array([ray[0] * depth - middle[0], ray[1] * depth - middle[1], depth - middle[2]])
