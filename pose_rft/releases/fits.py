"""NeuralAnnot's SMPL fits of Human3.6M and MPI-INF-3DHP: world frame, joined by sequence and frame.

The JSON files nest two names and a frame number: action/subaction/frame for Human3.6M, subject/sequence/frame for
MPI-INF-3DHP; a fit has pose (72 axis-angle numbers), shape (10) and trans (3, metres). Frames without a fit are simply
absent. Source: mks0601/NeuralAnnot_RELEASE; dataset notes sections 1.7 and 2.5. (EFT fits: `releases/eft.py`.)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import world_to_camera_smpl
from pose_rft.body.smpl import Gender, load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.record import Smpl

NEURALANNOT = "neuralannot"
MODELS_AT_ONCE = 3  # genders
FILES_AT_ONCE = 2  # a subject of Human3.6M is a file; workers read videos of one subject in a row


@dataclass(frozen=True, eq=False)
class SequenceFits:
    """Fits of one sequence: row of each frame number; pose (N, 24, 3) axis-angle, betas (N, 10), transl (N, 3)."""

    row_of: Mapping[int, int]
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray


def read_neuralannot(path: Path) -> Mapping[tuple[int, int], SequenceFits]:
    """All fits of a file by (action, subaction) or (subject, sequence), world frame, metres.

    Raises:
        PoseRftError: no such file, not JSON, or not NeuralAnnot's layout.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise PoseRftError(
            f"SMPL fits {path} do not exist; get them from https://github.com/mks0601/NeuralAnnot_RELEASE "
            "or set `fits` of this data set to null."
        ) from None
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=FILES_AT_ONCE)
def _read(path: Path, modified: int, size: int) -> Mapping[tuple[int, int], SequenceFits]:
    try:
        content = json.loads(path.read_bytes())
        return {
            (int(first), int(second)): _sequence(frames)
            for first, inner in content.items()
            for second, frames in inner.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is not a NeuralAnnot SMPL file ({type(error).__name__}: {' '.join(str(error).split())[:120]}); "
            "download it again."
        ) from None


def _sequence(frames: Mapping[str, Mapping[str, list[float]]]) -> SequenceFits:
    numbers = sorted(int(frame) for frame in frames)
    fits = [frames[str(number)] for number in numbers]

    def stack(name: str, *shape: int) -> np.ndarray:
        return np.array([np.asarray(fit[name], np.float64).reshape(shape) for fit in fits]).reshape(-1, *shape)

    rows = {number: row for row, number in enumerate(numbers)}
    return SequenceFits(rows, stack("pose", 24, 3), stack("shape", 10), stack("trans", 3))


def rest_pelvis(body_model: Path, betas: np.ndarray, gender: Gender = "neutral") -> np.ndarray:
    """Where joint 0 of the resting body lies for betas (N, 10): (N, 3) metres, needed to move SMPL between frames.

    Raises:
        PoseRftError: there is no body model of this gender.
    """
    return _model(body_model, gender).rest_joints(torch.tensor(betas, dtype=torch.float32))[:, 0].double().numpy()


@lru_cache(maxsize=MODELS_AT_ONCE)
def _model(folder: Path, gender: Gender):  # type: ignore[no-untyped-def]
    return load_body_model(folder, gender)


def smpl_in_camera(
    pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    body_model: Path,
    source: str,
    gender: Gender = "neutral",
) -> list[Smpl]:
    """World-frame fits as camera-frame `Smpl`s.

    Args:
        pose: (N, 24, 3) axis-angle, root in the world frame; betas: (N, 10); transl: (N, 3) metres;
        R: (3, 3) or (N, 3, 3) and t: (3,) or (N, 3) metres, world → camera.
    Raises:
        PoseRftError: the body model is missing, or a number is not finite.
    """
    pose, transl = np.asarray(pose, np.float64), np.asarray(transl, np.float64)
    if not np.isfinite(pose).all():
        raise PoseRftError(f"An SMPL pose from {source} holds a number that is not finite.")
    root, moved = world_to_camera_smpl(
        Rotation.from_rotvec(pose[:, 0]).as_matrix(), transl, R, t, rest_pelvis(body_model, betas, gender)
    )
    vectors = Rotation.from_matrix(root).as_rotvec()
    return [
        Smpl(
            global_orient=vectors[i],
            body_pose=pose[i, 1:],
            betas=betas[i],
            transl=moved[i],
            valid=np.ones(24, bool),
            gender=gender,
            body_model="smpl",
            frame="camera",
            source=source,
        )
        for i in range(len(pose))
    ]
