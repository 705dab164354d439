"""Conversions between the coordinate frames of a pose; no other module converts frames.

Camera frame: x right, y down, z forward. AMASS frame: z up, a person with heading 0 looks along -y. SMPL's own (body)
frame: y up, z front, x to the person's left. A change of frame multiplies the root rotation from the left; no other
rotation changes. AMASS → camera is Rx(+90°) (ChatPose and UniPose data code, PoseEmbroider for the inverse); heading
removal sets the z angle of the root's ZYX Euler angles to 0 (PoseScript `utils.py`), as the text-pose model expects.
All functions accept numpy arrays and tensors: converters run without torch.
"""

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Frame = Literal["camera", "amass"]
Array = TypeVar("Array", np.ndarray, "Tensor")

# If the root's x axis, projected onto the ground plane, is shorter, the heading is undefined and not changed.
NO_HEADING = 1e-6


def amass_to_camera(root: Array) -> Array:
    """(..., 3, 3) root rotation in the AMASS frame → in the frame of a level camera that looks along +y.

    Rx(+90°) maps (x, y, z) to (x, -z, y). Rows are permuted, not multiplied: exact, and unaffected by autocast.
    """
    x, y, z = _rows(root)
    return _library(root).stack((x, -z, y), axis=-2)


def camera_to_amass(root: Array) -> Array:
    """(..., 3, 3) inverse of `amass_to_camera`; assumes a level camera."""
    x, y, z = _rows(root)
    return _library(root).stack((x, z, -y), axis=-2)


def remove_heading(root: Array) -> Array:
    """(..., 3, 3) root rotation in the AMASS frame → rotated about z so that its z Euler angle (ZYX) is 0.

    Idempotent. If the heading is undefined (body x axis vertical), the rotation is unchanged and still differentiable.
    """
    library = _library(root)
    x, y = root[..., 0, 0], root[..., 1, 0]
    length_squared = x * x + y * y
    defined = length_squared > NO_HEADING**2
    length = library.sqrt(library.where(defined, length_squared, 1.0))
    cos = library.where(defined, x / length, 1.0)[..., None]
    sin = library.where(defined, y / length, 0.0)[..., None]
    first, second, third = _rows(root)
    return library.stack((cos * first + sin * second, cos * second - sin * first, third), axis=-2)


def semantic_frame(rotations: Array, source: Frame) -> Array:
    """Converts a pose to the input frame of the text-pose model: AMASS frame, heading removed.

    Args:
        rotations: (..., 24, 3, 3) local rotations, joint 0 = root in the frame `source`.
    """
    root = rotations[..., 0, :, :]
    root = remove_heading(camera_to_amass(root) if source == "camera" else root)
    return _library(root).concatenate((root[..., None, :, :], rotations[..., 1:, :, :]), axis=-3)


def world_to_camera_smpl(
    root: Array, transl: Array, rotation: Array, translation: Array, pelvis: Array
) -> tuple[Array, Array]:
    """Transforms SMPL's global orientation and translation to the frame `X' = rotation X + translation`.

    SMPL rotates the body about its rest pelvis, not about the origin, so the translation must compensate.

    Args:
        root: (..., 3, 3); transl: (..., 3) metres; rotation: (..., 3, 3); translation: (..., 3) metres;
        pelvis: (..., 3) rest position of joint 0 for the person's betas and gender, metres (`rest_joints`).
    Returns:
        root (..., 3, 3) and transl (..., 3) in the new frame.
    """
    moved = (rotation @ (pelvis + transl)[..., None])[..., 0]
    return rotation @ root, moved + translation - pelvis


def _rows(matrices: Array) -> tuple[Array, Array, Array]:
    """The three rows (..., 3) of (..., 3, 3)."""
    return matrices[..., 0, :], matrices[..., 1, :], matrices[..., 2, :]


def _library(array: Any) -> Any:
    """Returns numpy or torch; the functions used here have the same names and arguments in both."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch
