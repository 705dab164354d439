"""AMASS's layout: an .npz of SMPL+H parameters at a constant frame rate, z up.

SMPL+H has SMPL's first 22 joints and 30 finger joints, which are written at rest; SMPL's two hand joints are dropped.
Source: AMASS (amass.is.tue.mpg.de), files of SMPL+H: poses (F, 156), trans (F, 3), betas (16), dmpls (F, 8), gender,
mocap_framerate.
"""

import io
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import camera_to_amass, world_to_camera_smpl
from pose_rft.export.motion import Motion, Rig

POSES, BODY_JOINTS, BETAS, DMPLS = 156, 22, 16, 8


def amass(motion: Motion, rig: Rig) -> bytes:
    """Returns the file's bytes; the same motion always gives the same bytes."""
    motion, rate = motion.even()
    frames = len(motion.rotations)
    turn = camera_to_amass(np.eye(3))
    root, trans = world_to_camera_smpl(motion.rotations[:, 0], motion.transl, turn, np.zeros(3), rig.joints[0])
    body = np.concatenate([root[:, None], motion.rotations[:, 1:BODY_JOINTS]], 1)
    poses = np.zeros((frames, POSES))
    poses[:, : 3 * BODY_JOINTS] = Rotation.from_matrix(body.reshape(-1, 3, 3)).as_rotvec().reshape(frames, -1)
    content: dict[str, Any] = {
        "poses": poses,
        "trans": trans,
        "betas": np.zeros(BETAS),
        "dmpls": np.zeros((frames, DMPLS)),
        "gender": np.array(rig.gender),
        "mocap_framerate": np.array(rate),
        "licence": np.array(rig.note),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()
