"""Renders bodies alone or over photographs, for the report, `pose-rft predict` and `pose-rft shards show`."""

import base64

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from pose_rft.body.camera_fit import fit_box
from pose_rft.body.cameras import intrinsics, project
from pose_rft.body.frames import amass_to_camera
from pose_rft.body.smpl import BodyModel
from pose_rft.record import Camera, Smpl
from pose_rft.render.renderer import Renderer

PREDICTED = (0.36, 0.60, 0.87)
TRUE = (0.55, 0.74, 0.50)
PAPER = 0.96  # grey of the background
SKIN = (0.59, 0.75, 0.92)
OPACITY = 0.6
DISTANCE = 3.5  # metres, for a body that no camera saw
NEAREST = 0.05  # metres before the camera; nearer triangles are left out


class BodyPainter:
    """Renders bodies of one model. Build it once; each picture is then cheap."""

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
        """Renders the body from its own camera so that it fills a square picture (size, size, 3) uint8."""
        K = np.array([[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1.0]])
        vertices = self.vertices(rotations)
        placed = vertices + fit_box(vertices, np.array([size / 2, size / 2]), 1.1 * size, K)
        return self.paint(placed, colour, K, np.full((size, size, 3), PAPER, np.float32))

    def paint(
        self, placed: np.ndarray, colour: tuple[float, float, float], K: np.ndarray, background: np.ndarray
    ) -> np.ndarray:
        """Renders vertices (V, 3) in the camera frame over a background (H, W, 3) float in 0..1; returns uint8."""
        colours = np.tile(np.asarray(colour, np.float32), (len(self.renderer.faces), 1))
        image, _ = self.renderer.render(placed.astype(np.float32), colours, K, background.shape[:2], background)
        return image


def body_vertices(smpl: Smpl, body: BodyModel) -> np.ndarray:
    """Vertices (V, 3) metres, camera frame; a body in the AMASS frame is placed in front of the viewer."""
    vectors = np.concatenate([smpl.global_orient[None], smpl.body_pose])
    rotations = torch.from_numpy(Rotation.from_rotvec(vectors).as_matrix()).float()
    transl = torch.from_numpy(smpl.transl)
    if smpl.frame == "amass":
        rotations = torch.cat([amass_to_camera(rotations[:1]), rotations[1:]])
        transl = torch.tensor([0.0, 0.0, DISTANCE])
    with torch.no_grad():
        return body.vertices(rotations[None], torch.from_numpy(smpl.betas)[None], transl[None])[0].numpy()


def portrait_camera(side: int) -> Camera:
    """Returns the camera of a square picture (side px) for a body without a camera of its own."""
    return Camera(intrinsics(1.4 * side, 1.4 * side, side / 2, side / 2))


def draw_body(
    picture: NDArray[np.uint8], vertices: np.ndarray, faces: np.ndarray, camera: Camera, scale: float
) -> NDArray[np.uint8]:
    """Draws a semi-transparent body over its photograph, with the camera's lens distortion.

    Args:
        picture: (H, W, 3) RGB. vertices: (V, 3) metres, camera frame; faces: (F, 3).
        scale: picture px per px of the camera's calibration.
    """
    ahead = faces[(vertices[faces][..., 2] > NEAREST).all(axis=1)]
    if not len(ahead):
        return picture
    K = np.diag([scale, scale, 1.0]) @ camera.K
    depth = vertices[:, 2:].clip(NEAREST)
    seen = np.concatenate(
        [project(np.concatenate([vertices[:, :2], depth], 1), camera) * scale, np.ones_like(depth)], 1
    )
    bent = seen @ np.linalg.inv(K).T * depth  # where a camera without distortion sees them at the same place
    colours = np.tile(np.asarray(SKIN, np.float32), (len(ahead), 1))
    background = picture.astype(np.float32) / 255
    painted, _ = Renderer(ahead).render(bent.astype(np.float32), colours, K, background.shape[:2], background)
    return cv2.addWeighted(painted, OPACITY, picture, 1 - OPACITY, 0).astype(np.uint8)


def on_frame(rotations: Tensor) -> Tensor:
    """Turns a text pose (root in the camera frame, heading removed) by 25 degrees, so that depth is visible."""
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
