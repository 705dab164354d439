"""Published SMPL fits for the releases: their files, order of preference, and formats.

`fits` of a data set lists its files. If several have a fit of the same person, the first one is used, and each sample
records its source. Fits are matched by what identifies a person (annotation, image and box, video and frame), never by
row number alone. Video data sets use `video_fits`; photographs use `still_fits`.

| source        | file                                                              | where                            |
|---------------|-------------------------------------------------------------------|----------------------------------|
| `neuralannot` | NeuralAnnot JSON (index for MPII: Hand4Whole's `train.json`)      | mks0601/NeuralAnnot_RELEASE      |
| `eft`         | EFT JSON, rotation matrices                                       | facebookresearch/eft             |
| `mosh`        | folder `S1/Directions 1_cam0_aligned.pkl` (no longer distributed) | akanazawa/hmr                    |
| `spin`        | final fits .npz, static fits .npy or .npz (index: SPIN's training | nkolot/SPIN                      |
|               | npz, whose rows they follow), or that training npz itself         |                                  |
| `hmr2`        | label npz of HMR2.0 or ProHMR                                     | shubham-goel/4D-Humans           |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.camera_fit import fit_translation
from pose_rft.body.frames import world_to_camera_smpl
from pose_rft.body.joints import to_smpl24
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.body.model_file import Gender, ModelArrays, find_model_file, read_model_file
from pose_rft.datasets.common.labels import plausible
from pose_rft.errors import PoseRftError
from pose_rft.io.find import find
from pose_rft.params import Section
from pose_rft.record import Defect, Smpl

MODELS_AT_ONCE = 3  # one per gender
NOT_FINITE = "a number that is not finite"
LARGEST_ENTRY = 1.1  # of a rotation matrix: 1, plus a margin for rounding in releases
FitKind = Literal["neuralannot", "eft", "mosh", "spin", "hmr2"]
WHERE = {
    "neuralannot": "https://github.com/mks0601/NeuralAnnot_RELEASE",
    "eft": "https://github.com/facebookresearch/eft",
    "mosh": "whoever has MoSh's fits of Human3.6M (akanazawa/hmr doc/train.md)",
    "spin": "https://github.com/nkolot/SPIN",
    "hmr2": "https://github.com/shubham-goel/4D-Humans",
}


class FitSource(Section):
    """One entry of `fits`: the source, its file below the release's root, and the file that names its rows, if any."""

    source: FitKind
    path: str
    index: str | None = None

    def file(self, root: Path, subject: int = 0) -> Path:
        """Returns the file (or MoSh's folder); `{subject}` in its path is replaced by the subject's number.

        Raises:
            PoseRftError: it does not exist.
        """
        return self._there(self.place(root, subject))

    def place(self, root: Path, subject: int = 0) -> Path:
        """Returns where the file should be."""
        return root / self.path.replace("{subject}", str(subject))

    def index_file(self, root: Path) -> Path | None:
        """Returns the path of the index file; None if the source has none."""
        return None if self.index is None else self._there(root / self.index)

    def _there(self, path: Path) -> Path:
        if not path.exists():
            raise PoseRftError(
                f"SMPL fits {path} do not exist; get them from {WHERE[self.source]} or take them out of `fits` "
                "(on the command line: --no-fits)."
            )
        return path


@dataclass(frozen=True)
class BrokenFit:
    """A fit that exists in the file but is invalid; its sample becomes a defect instead of silently losing its fit.

    problem: file, person or frame, and what is wrong, for the defect's detail.
    """

    problem: str

    def defect(self, unit: str, row: str) -> Defect:
        """Returns the defects-table row for the person or frame of this fit."""
        return Defect(unit, row, "broken fit", self.problem)


def fit_files(sources: Sequence[FitSource], root: Path, subjects: Sequence[int] = (0,)) -> list[Path]:
    """Returns the files that exist (absolute, sorted), including those in MoSh's folder."""
    found: set[Path] = set()
    for source in sources:
        for place in (source.place(root, subject) for subject in subjects):
            found |= set(find(place, "**/*.pkl")) if place.is_dir() else {place}
        if source.index is not None:
            found.add(root / source.index)
    return sorted(path for path in found if path.is_file())


def rest_pelvis(body_model: Path, betas: np.ndarray, gender: Gender = "neutral") -> np.ndarray:
    """Returns joint 0 of the rest pose for betas (N, 10): (N, 3) metres, needed to move SMPL between frames.

    Raises:
        PoseRftError: there is no body model of this gender.
    """
    return _arrays(body_model, gender).rest_joints(betas)[:, 0].astype(np.float64)


@lru_cache(maxsize=MODELS_AT_ONCE)
def _arrays(folder: Path, gender: Gender) -> ModelArrays:
    return read_model_file(find_model_file(folder, gender))


def smpl_in_camera(
    pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    body_model: Path,
    source: str,
    gender: Gender = "neutral",
) -> list[Smpl | BrokenFit]:
    """Converts world-frame fits to camera-frame `Smpl`s, or `BrokenFit` if a number is not finite or R is no rotation.

    Args:
        pose: (N, 24, 3) axis-angle, root in the world frame; betas: (N, 10); transl: (N, 3) metres;
        R: (3, 3) or (N, 3, 3) and t: (3,) or (N, 3) metres, world → camera.
    Raises:
        PoseRftError: the body model is missing.
    """
    count = len(pose)
    pose, betas, transl = (np.array(numbers, np.float64) for numbers in (pose, betas, transl))
    R, t = np.broadcast_to(R, (count, 3, 3)).astype(np.float64), np.broadcast_to(t, (count, 3)).astype(np.float64)
    fits = np.logical_and.reduce([plausible(n.reshape(count, -1)).all(axis=1) for n in (pose, betas, transl)])
    # Excludes NaN, and numbers that would make the decompositions below fail.
    cameras = (np.abs(R) <= LARGEST_ENTRY).all(axis=(1, 2)) & plausible(t).all(axis=1)
    cameras[cameras] &= np.linalg.det(R[cameras]) > 0
    sound = fits & cameras
    pose[~sound], betas[~sound], transl[~sound], R[~sound], t[~sound] = 0, 0, 0, np.eye(3), 0
    root, moved = world_to_camera_smpl(
        Rotation.from_rotvec(pose[:, 0]).as_matrix(), transl, R, t, rest_pelvis(body_model, betas, gender)
    )
    pose[:, 0] = Rotation.from_matrix(root).as_rotvec()
    found: list[Smpl | BrokenFit] = []
    for i in range(count):
        if sound[i]:
            found.append(camera_smpl(pose[i], betas[i], moved[i], source, gender))
        else:
            found.append(BrokenFit("the camera is no rotation" if fits[i] else NOT_FINITE))
    return found


def camera_smpl(
    pose: np.ndarray, betas: np.ndarray, transl: np.ndarray, source: str, gender: Gender = "neutral"
) -> Smpl:
    """Wraps a fit whose root (row 0 of pose (24, 3), axis-angle) and transl (3,) are in the camera frame as `Smpl`."""
    return Smpl(
        global_orient=pose[0],
        body_pose=pose[1:],
        betas=betas,
        transl=transl,
        valid=np.ones(24, bool),
        gender=gender,
        body_model="smpl",
        frame="camera",
        source=source,
    )


def posed_joints(pose: np.ndarray, betas: np.ndarray, body_model: Path, gender: Gender = "neutral") -> np.ndarray:
    """Returns SMPL's 24 joints (N, 24, 3), metres, for poses (N, 24, 3) and betas (N, 10), without translation.

    Raises:
        PoseRftError: there is no body model of this gender.
    """
    rotations = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    return _skeleton(body_model, gender).joints(rotations, betas)


@lru_cache(maxsize=MODELS_AT_ONCE)
def _skeleton(folder: Path, gender: Gender) -> NumpyBody:
    return NumpyBody(folder, gender)


def place_on_joints3d(joints: np.ndarray, points: np.ndarray, joint_set: str) -> np.ndarray:
    """Returns the translations (N, 3) that bring SMPL's joints closest to the annotated ones, over the shared joints.

    Args:
        joints: (N, 24, 3) metres, `posed_joints`; points: (N, J, 3) metres, camera frame, in the order of `joint_set`.
    """
    target, shared = to_smpl24(points, joint_set)
    translations: np.ndarray = (target[:, shared] - joints[:, shared]).mean(axis=1)
    return translations


def place_on_joints2d(joints: np.ndarray, points: np.ndarray, joint_set: str, K: np.ndarray) -> np.ndarray | None:
    """Fits the translation (3,) that projects SMPL's joints (24, 3) onto points (J, 3) px + confidence; K (3, 3) px.

    Returns None if fewer than four joints are known, or if a joint would lie behind the camera.
    """
    target, shared = to_smpl24(points, joint_set)
    weights = np.where(shared, target[:, 2], 0.0)
    if int((weights > 0).sum()) < 4:
        return None
    transl = fit_translation(joints, target[:, :2], weights, K)
    return transl if transl[2] + joints[:, 2].min() > 0 else None
