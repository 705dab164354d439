"""Bodies and photographs as pictures for the report and for `pose-rft predict`."""

import base64

import cv2
import numpy as np
import torch
from torch import Tensor

from pose_rft.body.camera_fit import fit_box
from pose_rft.body.smpl import BodyModel
from pose_rft.render.renderer import Renderer

PREDICTED = (0.36, 0.60, 0.87)
TRUE = (0.55, 0.74, 0.50)
PAPER = 0.96  # grey of the background


class BodyPainter:
    """Renders bodies of one model; cheap per picture, built once."""

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        self.renderer = Renderer(body.faces.cpu().numpy())

    def vertices(self, rotations: Tensor) -> np.ndarray:
        """(24, 3, 3) camera frame -> (V, 3) metres, mean shape, at the origin."""
        with torch.no_grad():
            return self.body.vertices(rotations[None].float())[0].numpy()

    def portrait(
        self, rotations: Tensor, colour: tuple[float, float, float] = PREDICTED, size: int = 160
    ) -> np.ndarray:
        """The body as its own camera sees it, filling a square picture (size, size, 3) uint8."""
        K = np.array([[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1.0]])
        vertices = self.vertices(rotations)
        placed = vertices + fit_box(vertices, np.array([size / 2, size / 2]), 1.1 * size, K)
        return self.paint(placed, colour, K, np.full((size, size, 3), PAPER, np.float32))

    def paint(
        self, placed: np.ndarray, colour: tuple[float, float, float], K: np.ndarray, background: np.ndarray
    ) -> np.ndarray:
        """Vertices (V, 3) in the camera frame over a background (H, W, 3) float in 0..1; returns uint8."""
        colours = np.tile(np.asarray(colour, np.float32), (len(self.renderer.faces), 1))
        image, _ = self.renderer.render(placed.astype(np.float32), colours, K, background.shape[:2], background)
        return image


def on_frame(rotations: Tensor) -> Tensor:
    """A text pose (root in the camera frame, heading removed) turned 25 degrees, so that depth can be seen."""
    angle = np.deg2rad(25.0)
    turn = torch.tensor(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], dtype=rotations.dtype
    )
    return torch.cat([(turn @ rotations[0])[None], rotations[1:]])


def data_uri(image: np.ndarray, quality: int = 85) -> str:
    """(H, W, 3) uint8 RGB as a JPEG data URI."""
    ok, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
