"""The part of a picture that a person's crop shows: a square that may be rotated in the image plane.

Training uses upright squares (`policy/person_crops.py`). Prediction may rotate the square so that the person in it
stands upright; the predicted root is then rotated back by the same angle.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_rft.policy.person_crops import Square


@dataclass(frozen=True)
class Region:
    """center (x, y) and side in px; angle: clockwise rotation of the person's up direction from the picture's,
    radians."""

    center: tuple[float, float]
    side: float
    angle: float = 0.0

    @classmethod
    def of(cls, square: Square) -> "Region":
        """Returns the region of an upright square crop."""
        return cls((square.left + square.side / 2, square.top + square.side / 2), square.side)

    def axes(self) -> NDArray[np.float64]:
        """(2, 2): the crop's x and y directions in the picture, as columns."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[c, -s], [s, c]])

    def to_picture(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Maps (..., 2) crop coordinates in [-1, 1] to px in the picture."""
        return np.asarray(self.center) + self.side / 2 * points @ self.axes().T

    def view_turn(self, K: NDArray[np.floating]) -> NDArray[np.float64]:
        """(3, 3): from the axes of a camera that looks straight at the region to those of the picture's camera K.

        A crop shows a person at the picture's edge as if the camera had turned to them; the pose is read accordingly.
        """
        ray = np.linalg.inv(K) @ np.array([*self.center, 1.0])
        ray /= np.linalg.norm(ray)
        axis = np.cross([0.0, 0.0, 1.0], ray)
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        turn: NDArray[np.float64] = np.eye(3) + cross + cross @ cross / (1 + ray[2])
        return turn

    def root_turn(self) -> NDArray[np.float64]:
        """(3, 3): camera axes of the crop → those of the picture, a rotation about the line of sight."""
        turn = np.eye(3)
        turn[:2, :2] = self.axes()
        return turn

    def cut(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """Cuts (size, size, 3) out of a picture (H, W, 3); pixels outside the picture are black."""
        height, width = pixels.shape[:2]
        reach = self.side / 2 * (abs(np.cos(self.angle)) + abs(np.sin(self.angle)))
        shrink = max(1, int(self.side / size))
        x, y = self.center
        left, right = (int(np.clip(v, 0, width)) for v in (x - reach - shrink, x + reach + 2 * shrink))
        top, bottom = (int(np.clip(v, 0, height)) for v in (y - reach - shrink, y + reach + 2 * shrink))
        if right - left < shrink or bottom - top < shrink:
            return np.zeros((size, size, 3), np.uint8)
        part = pixels[top : top + (bottom - top) // shrink * shrink, left : left + (right - left) // shrink * shrink]
        if shrink > 1:  # average, so that the bilinear step below skips no pixel
            small = (part.shape[1] // shrink, part.shape[0] // shrink)
            part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        turn = size / self.side * shrink * self.axes().T
        origin = (np.array([x - left, y - top])) / shrink  # the region's centre, in px of `part`
        shift = size / 2 - 0.5 - turn @ (origin - 0.5)
        affine = np.concatenate([turn, shift[:, None]], 1)
        return cv2.warpAffine(part, affine, (size, size), flags=cv2.INTER_LINEAR)  # type: ignore[return-value]
