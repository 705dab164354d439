"""Projection with the distortion models of the releases.

`Camera.distortion_model` names the model. `h36m` is Human3.6M's own: like OpenCV's model without rational terms, but
all tangential terms except r² are half as large. OpenCV's model misses the 2D labels by up to 0.19 px, this one by
3e-5 px (measured on MMPose's sample of the real labels, docs/formats.md, Human3.6M). Other sets have no distortion.
"""

import numpy as np

from pose_rft.record import Camera

H36M_MODEL = "h36m"  # coefficients k1, k2, k3, p1, p2


def distort_h36m(points: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Applies Human3.6M's lens distortion to ideal image-plane points (..., 2) (x/z, y/z)."""
    k1, k2, k3, p1, p2 = (float(value) for value in coefficients)
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    scale = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
    return points * scale[..., None] + r2[..., None] * np.array([p2, p1])


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera-frame points (..., 3) metres → px (..., 2), with the camera's distortion.

    Raises:
        ValueError: the distortion model is unknown.
    """
    points = np.asarray(points, dtype=np.float64)
    plane = points[..., :2] / points[..., 2:]
    if camera.distortion_model == H36M_MODEL and camera.distortion is not None:
        plane = distort_h36m(plane, camera.distortion)
    elif camera.distortion_model is not None:
        raise ValueError(f"unknown distortion model {camera.distortion_model!r}")
    return plane @ camera.K[:2, :2].T + camera.K[:2, 2]


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K (3, 3) px."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
