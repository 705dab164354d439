"""Reads SMPL model files: the official ones (v1.0.0 with chumpy inside, v1.1.0) or the stand-in of the sample.

The stand-in (`pose_rft.sample.standin`) has the same format but other vertices: nothing here assumes 6,890. A
restricted unpickler reads the file, and its arrays are used only after their shapes have been checked. The module uses
numpy only: dataset readers need rest joints, and importing torch takes longer than converting a small release.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse

from pose_rft.body.joints import H36M17, SMPL24
from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.npz import read_npy
from pose_rft.io.unpickle import SparseMatrix, parse_pickle, plain

Gender = Literal["neutral", "male", "female"]
LARGEST_FILE = 1 << 30  # bytes; SMPL's own have 40 to 250 MB
LARGEST = 100.0  # of all numbers: metres, metres a beta, weights
BETAS = 10
POSE_BASIS = 207  # 23 joints × 9
# smplx picks nose, toes, heels and finger tips by vertex number, up to 6787 (smplx/vertex_ids.py).
FEWEST_VERTICES = 6788
REGRESSOR = "J_regressor_h36m.npy"
STANDIN_CARD = "standin.json"
WHERE_TO_GET = "register at https://smpl.is.tue.mpg.de to get it, or set data.source to `sample` for the stand-in"

_LETTER: Mapping[str, str] = {"neutral": "neutral", "male": "m", "female": "f"}


def accepted_names(gender: Gender) -> tuple[str, ...]:
    """Model file names used by the official releases and by other projects (compared case-insensitively)."""
    letter = _LETTER[gender]
    return (
        f"SMPL_{gender.upper()}.pkl",
        f"basicModel_{letter}_lbs_10_207_0_v1.0.0.pkl",
        f"basicmodel_{letter}_lbs_10_207_0_v1.1.0.pkl",
    )


def find_model_file(folder: Path, gender: Gender) -> Path:
    """Finds the model file of one gender in `folder/smpl`.

    Raises:
        PoseRftError: there is no such file.
    """
    inside = folder / "smpl"
    present = {path.name.lower(): path for path in sorted(inside.iterdir())} if inside.is_dir() else {}
    names = accepted_names(gender)
    for name in names:
        if name.lower() in present:
            return present[name.lower()]
    if f"smpl_{gender}.npz" in present:
        raise PoseRftError(
            f"{present[f'smpl_{gender}.npz']} is an npz container, expected the pickle {names[0]}; {WHERE_TO_GET}."
        )
    raise PoseRftError(f"{inside} has no {gender} SMPL model ({', '.join(names)}); {WHERE_TO_GET}.")


@dataclass(frozen=True, eq=False)
class ModelArrays:
    """Validated content of an SMPL file: metres, rest pose, y up, z front, x to the person's left.

    v_template (V, 3), shapedirs (V, 3, 10), posedirs (V, 3, 207), J_regressor (24, V), weights (V, 24) float32;
    faces (F, 3) int64.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    J_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray

    @cached_property
    def rest(self) -> np.ndarray:
        """(24, 3) joints of the mean shape at rest."""
        return self._regressed(self.v_template)

    @cached_property
    def rest_per_beta(self) -> np.ndarray:
        """(24, 3, 10): what one unit of each beta adds to `rest`."""
        return self._regressed(self.shapedirs.reshape(len(self.shapedirs), -1)).reshape(-1, 3, self.shapedirs.shape[2])

    def _regressed(self, values: np.ndarray) -> np.ndarray:
        """(V, N) → (24, N), in double precision, vertex by vertex: the order of additions is fixed on every CPU."""
        regressor = scipy.sparse.csr_matrix(self.J_regressor.astype(np.float64))
        joints: np.ndarray = regressor @ values.astype(np.float64)
        return joints.astype(np.float32)

    def rest_joints(self, betas: np.ndarray) -> np.ndarray:
        """(..., 24, 3) float32 joints at rest for betas (..., 10)."""
        weights = np.asarray(betas, np.float32)[..., None, None, :]
        # Adds one beta after the other, as torch does for such short rows: bit-identical to `BodyModel.rest_joints`.
        shift: np.ndarray = np.zeros(1, np.float32)
        for beta in range(BETAS):
            shift = shift + self.rest_per_beta[..., beta] * weights[..., beta]
        return self.rest + shift


def read_model_file(path: Path) -> ModelArrays:
    """Reads and checks one SMPL pickle.

    Raises:
        PoseRftError: not a pickle of plain data, a missing key, a wrong shape or value, or not SMPL's 24-joint tree.
    """
    data = door.read_file(path, LARGEST_FILE)
    if data.startswith(b"PK"):
        raise PoseRftError(f"{path} is an npz container, expected a pickle as SMPL is released; {WHERE_TO_GET}.")
    content = parse_pickle(data, path)
    if not isinstance(content, dict):
        raise PoseRftError(f"{path} holds {type(content).__name__}, expected the dictionary of an SMPL model file.")
    keys = ("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f")
    if missing := [key for key in keys if key not in content]:
        raise PoseRftError(f"{path} lacks {', '.join(missing)}; an SMPL model file has {', '.join(keys)}.")
    arrays = {key: _dense(content[key], path, key) for key in keys}

    vertices = arrays["v_template"].shape[0] if arrays["v_template"].ndim else 0
    expected = {
        "v_template": (vertices, 3),
        "posedirs": (vertices, 3, POSE_BASIS),
        "J_regressor": (len(SMPL24), vertices),
        "weights": (vertices, len(SMPL24)),
        "kintree_table": (2, len(SMPL24)),
    }
    for key, shape in expected.items():
        if arrays[key].shape != shape:
            raise PoseRftError(
                f"{path}: {key} has shape {arrays[key].shape}, expected {shape}; is it SMPL (not SMPL-H or SMPL-X)?"
            )
    if vertices < FEWEST_VERTICES:
        raise PoseRftError(f"{path} has {vertices} vertices, expected at least {FEWEST_VERTICES} (SMPL has 6890).")
    shapedirs, faces = arrays["shapedirs"], arrays["f"]
    if shapedirs.ndim != 3 or shapedirs.shape[:2] != (vertices, 3) or shapedirs.shape[2] < BETAS:
        raise PoseRftError(f"{path}: shapedirs has shape {shapedirs.shape}, expected ({vertices}, 3, {BETAS} or more).")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= vertices:
        raise PoseRftError(f"{path}: f has shape {faces.shape} or points beyond the {vertices} vertices.")
    if tuple(arrays["kintree_table"][0, 1:].astype(np.int64)) != SMPL24.parents[1:]:  # type: ignore[index]
        raise PoseRftError(f"{path}: kintree_table is not SMPL's tree of 24 joints; use an SMPL model file.")
    for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights"):
        arrays[key] = np.ascontiguousarray(arrays[key][..., :BETAS] if key == "shapedirs" else arrays[key], np.float32)
        if not (np.abs(arrays[key]) <= LARGEST).all():
            raise PoseRftError(f"{path}: {key} holds a number that is not finite, or that no body has; get it again.")
    return ModelArrays(
        **{key: arrays[key] for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")},
        faces=faces.astype(np.int64),
    )


def _dense(value: Any, path: Path, key: str) -> np.ndarray:
    array = np.asarray(value.toarray() if isinstance(value, SparseMatrix) else plain(value))
    if array.dtype.kind not in "fiu":
        raise PoseRftError(f"{path}: {key} holds {array.dtype} values, expected numbers.")
    return array


def read_regressor(folder: Path, v_template: np.ndarray) -> np.ndarray | None:
    """Reads J_regressor_h36m.npy as (17, V) float32 in the order of `H36M17`; None if there is no such file.

    SPIN's file lists the left leg first, others the right; the rest pose (left has x > 0) shows which order it is.

    Raises:
        PoseRftError: not an array file, or not of shape (17, V) for this body model.
    """
    path = folder / REGRESSOR
    if not path.is_file():
        return None
    regressor = read_npy(path)
    expected = (len(H36M17), len(v_template))
    if regressor.dtype.kind not in "fiu":
        raise PoseRftError(f"{path} holds {regressor.dtype} values, expected numbers; get it again.")
    if regressor.shape != expected:
        raise PoseRftError(
            f"{path} has shape {regressor.shape}, expected {expected} for this body model of {len(v_template)} "
            "vertices; take the regressor that belongs to the model file."
        )
    regressor = regressor.astype(np.float32)
    if not (np.abs(regressor) <= LARGEST).all():
        raise PoseRftError(f"{path} holds a number that is not finite, or that no regressor has; get it again.")
    rest = regressor @ v_template
    order = np.arange(len(H36M17))
    for parts in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
        left, right = (H36M17.indices([f"{side}_{part}" for part in parts]) for side in ("left", "right"))
        if rest[left, 0].mean() < rest[right, 0].mean():
            order[left], order[right] = order[right], order[left]
    return regressor[order]


def is_standin(folder: Path) -> bool:
    """Whether the body model in `folder` is the stand-in of the embedded sample."""
    return (folder / STANDIN_CARD).is_file()
