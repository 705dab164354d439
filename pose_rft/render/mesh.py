"""A body drawn over its photograph: far triangles first, shaded by how they face the viewer (painter's algorithm)."""

import cv2
import numpy as np
import PIL.Image
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import intrinsics, project
from pose_rft.body.frames import amass_to_camera
from pose_rft.body.smpl import BodyModel
from pose_rft.record import Camera, Smpl

SKIN = np.array([150.0, 190.0, 235.0])
OPACITY = 0.6
DISTANCE = 3.5  # metres, for a body that no camera saw


def body_vertices(smpl: Smpl, body: BodyModel) -> np.ndarray:
    """(V, 3) metres, camera frame; a body in the AMASS frame is put before the viewer."""
    vectors = np.concatenate([smpl.global_orient[None], smpl.body_pose])
    rotations = torch.from_numpy(Rotation.from_rotvec(vectors).as_matrix()).float()
    transl = torch.from_numpy(smpl.transl)
    if smpl.frame == "amass":
        rotations = torch.cat([amass_to_camera(rotations[:1]), rotations[1:]])
        transl = torch.tensor([0.0, 0.0, DISTANCE])
    with torch.no_grad():
        return body.vertices(rotations[None], torch.from_numpy(smpl.betas)[None], transl[None])[0].numpy()


def portrait_camera(side: int) -> Camera:
    """The camera of a square picture (side px) for a body that no camera saw."""
    return Camera(intrinsics(1.4 * side, 1.4 * side, side / 2, side / 2))


def draw_body(picture: PIL.Image.Image, vertices: np.ndarray, faces: np.ndarray, camera: Camera, scale: float) -> None:
    """Paints a body into an RGB picture, in place.

    Args:
        vertices: (V, 3) metres, camera frame; faces: (F, 3); triangles behind the camera are left out.
        scale: px of the picture per px of the camera's own.
    """
    triangles = vertices[faces]
    triangles = triangles[(triangles[..., 2] > 0.05).all(axis=1)]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    colours = SKIN * (0.35 + 0.65 * np.abs(normals[:, 2:]))
    corners = np.rint(np.clip(project(triangles, camera) * scale, -1e4, 1e4)).astype(np.int32)
    canvas = np.asarray(picture).copy()
    painted = canvas.copy()
    for i in np.argsort(-triangles[..., 2].mean(axis=1), kind="stable"):
        cv2.fillConvexPoly(painted, corners[i], colours[i].tolist())
    mixed = cv2.addWeighted(painted, OPACITY, canvas, 1 - OPACITY, 0)
    picture.paste(PIL.Image.fromarray(mixed))
