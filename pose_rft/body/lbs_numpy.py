"""The SMPL body in numpy, for converters, checks, rendering and the writers of the sample; 1 ms per mesh.

Sums are written out instead of using matrix products, whose order of additions depends on the CPU: so the sample is the
same on every machine. The arithmetic is that of `pose_rft.body.smpl` (a test compares them). Works for SMPL and for the
stand-in.
"""

from pathlib import Path

import numpy as np
import scipy.sparse

from pose_rft.body.joints import H36M17, SMPL24, JointSet, joint_set
from pose_rft.body.model_file import (
    REGRESSOR,
    Gender,
    find_model_file,
    is_standin,
    read_model_file,
    read_regressor,
)
from pose_rft.errors import PoseRftError

# Surface points of SMPL by vertex number (smplx/vertex_ids.py, `smplh`), in the order of smplx's joints 24..44.
SURFACE_VERTICES = {
    "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583,
    "left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387,
    "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
    "left_thumb": 2746, "left_index": 2319, "left_middle": 2445, "left_ring": 2556, "left_pinky": 2673,
    "right_thumb": 6191, "right_index": 5782, "right_middle": 5905, "right_ring": 6016, "right_pinky": 6133,
}  # fmt: skip


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns `a @ b` for small matrices (..., n, k) and (..., k, m)."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def turned(matrices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Multiplies each point (..., 3) by its matrix (..., 3, 3)."""
    return (matrices * points[..., None, :]).sum(-1)


class NumpyBody:
    """A body model of one gender.

    Rotations are local, the root's (joint 0) relative to any outer frame; the output is in that outer frame.
    """

    def __init__(self, folder: Path, gender: Gender = "neutral") -> None:
        """
        Args:
            folder: `data.body_model`, see `pose_rft.body.smpl.load_body_model`.
        Raises:
            PoseRftError: the model file is missing or invalid, or the regressor is invalid.
        """
        arrays = read_model_file(find_model_file(folder, gender))
        regressor = read_regressor(folder, arrays.v_template)
        self.folder, self.gender, self.is_standin = folder, gender, is_standin(folder)
        self.faces = arrays.faces.astype(np.int32)
        self.v_template, self.weights = arrays.v_template, arrays.weights
        self._shapedirs = np.ascontiguousarray(arrays.shapedirs.transpose(2, 0, 1))
        self._posedirs = arrays.posedirs.reshape(-1, arrays.posedirs.shape[-1]) if arrays.posedirs.any() else None
        self._skin = scipy.sparse.csr_matrix(arrays.weights)
        self._h36m = None if regressor is None else scipy.sparse.csr_matrix(regressor)
        self._rest, self._rest_per_beta = arrays.rest.astype(np.float64), arrays.rest_per_beta

    def rest_joints(self, betas: np.ndarray | None = None) -> np.ndarray:
        """Rest joints (..., 24, 3) metres for betas (..., 10); without betas (24, 3), of the mean shape."""
        return self._rest if betas is None else self._rest + (self._rest_per_beta * betas[..., None, None, :]).sum(-1)

    def joints(
        self, rotations: np.ndarray, betas: np.ndarray | None = None, transl: np.ndarray | None = None
    ) -> np.ndarray:
        """(..., 24, 3, 3), betas (..., 10), transl (..., 3) → (..., 24, 3) float64 metres."""
        return self._chain(rotations, self.rest_joints(betas), transl)[0]

    def vertices(
        self, rotations: np.ndarray, betas: np.ndarray | None = None, transl: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(24, 3, 3), betas (10,), transl (3,) → vertices (V, 3) float32 and joints (24, 3) float64, metres."""
        rest = self.rest_joints(betas)
        joints, turns = self._chain(rotations, rest, transl)
        points = self.v_template
        if betas is not None:
            for beta, direction in zip(np.asarray(betas, np.float32), self._shapedirs, strict=True):
                points = points + beta * direction
        if self._posedirs is not None:
            features = (rotations[1:] - np.eye(3)).reshape(-1).astype(np.float32)
            points = points + (self._posedirs @ features).reshape(-1, 3)
        shift = joints - turned(turns, rest)
        transforms = np.concatenate([turns, shift[:, :, None]], axis=2).reshape(-1, 12).astype(np.float32)
        per_vertex = (self._skin @ transforms).reshape(-1, 3, 4)
        x, y, z = points[:, 0, None], points[:, 1, None], points[:, 2, None]
        moved = per_vertex[:, :, 0] * x + per_vertex[:, :, 1] * y + per_vertex[:, :, 2] * z
        return moved + per_vertex[:, :, 3], joints

    def _chain(
        self, rotations: np.ndarray, rest: np.ndarray, transl: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert SMPL24.parents is not None
        turns, joints = np.empty(rotations.shape), np.empty(rotations.shape[:-1])
        turns[..., 0, :, :] = rotations[..., 0, :, :]
        joints[..., 0, :] = rest[..., 0, :] if transl is None else rest[..., 0, :] + transl
        for joint, parent in enumerate(SMPL24.parents[1:], 1):
            above, bone = turns[..., parent, :, :], rest[..., joint, :] - rest[..., parent, :]
            turns[..., joint, :, :] = product(above, rotations[..., joint, :, :])
            joints[..., joint, :] = joints[..., parent, :] + turned(above, bone)
        return joints, turns

    def h36m_joints(self, vertices: np.ndarray) -> np.ndarray:
        """(V, 3) → (17, 3) in the order of `H36M17`.

        Raises:
            PoseRftError: the body model came without the regressor.
        """
        if self._h36m is None:
            raise PoseRftError(f"{self.folder / REGRESSOR} does not exist; it belongs beside the smpl folder.")
        return self._h36m @ vertices

    def keypoints(self, vertices: np.ndarray, joints: np.ndarray, target: JointSet | str) -> np.ndarray:
        """Returns keypoints of a posed body in the order of a release's joint set.

        Points that SMPL defines are exact; others (3DHP's spines, MPII's upper neck, finger bones and face landmarks
        of SMPL-X) are approximated plausibly, which is enough for a miniature release.

        Args:
            vertices: (V, 3), joints: (24, 3), as returned by `vertices`.
        Returns:
            (J, 3) metres, same frame.
        """
        target = joint_set(target) if isinstance(target, str) else target
        if target is SMPL24:
            return np.asarray(joints)
        points = dict(zip(SMPL24.joints, joints, strict=True))
        points |= {name: vertices[index] for name, index in SURFACE_VERTICES.items()}
        h36m = dict(zip(H36M17.joints, self.h36m_joints(vertices), strict=True))
        points |= {name: h36m[name] for name in ("head_top", "spine")}
        if target.name == "smplx127":
            points |= _hands(points) | _face(points)
        else:
            points |= _between(points, target.name) | {"pelvis": h36m["pelvis"]}
        if target.name in ("h36m17", "h36m32", "lsp14"):
            points |= h36m
        return np.stack([points[name] for name in target.joints])


def _between(points: dict[str, np.ndarray], target: str) -> dict[str, np.ndarray]:
    """Approximates the releases' joints that SMPL lacks from those that it has."""
    found = {"thorax": points["neck"], "upper_neck": (points["neck"] + points["head"]) / 2, "spine0": points["pelvis"]}
    if target.startswith("mpi"):
        found["spine4"] = (points["spine3"] + points["neck"]) / 2
        found["head"] = (points["head"] + points["head_top"]) / 2
        found["spine"] = points["spine1"]
    for side in ("left", "right"):
        hand, middle = points[f"{side}_hand"], points[f"{side}_middle"]
        found[f"{side}_clavicle"] = points[f"{side}_collar"]
        found[f"{side}_toe"] = points[f"{side}_big_toe"] if target.startswith("mpi") else points[f"{side}_foot"]
        found[f"{side}_toe_end"] = points[f"{side}_big_toe"]
        found[f"{side}_thumb_end"] = points[f"{side}_thumb"]
        found[f"{side}_wrist_end"], found[f"{side}_hand_end"] = hand, middle
        if target == "h36m32":  # copies that the CDF files hold
            found[f"{side}_collar"] = points["neck"]
            found[f"{side}_thumb"] = points[f"{side}_wrist"]
    return found


def _hands(points: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Places SMPL-X's three bones of each finger on the line from the wrist to the fingertip."""
    return {
        f"{side}_{finger}{bone}": points[f"{side}_wrist"]
        + share * (points[f"{side}_{finger}"] - points[f"{side}_wrist"])
        for side in ("left", "right")
        for finger in ("thumb", "index", "middle", "ring", "pinky")
        for bone, share in ((1, 0.5), (2, 0.7), (3, 0.85))
    }


def _face(points: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Places SMPL-X's jaw, eyeballs and 51 landmarks relative to eyes and nose; the mouth lies below the nose."""
    eyes = {side: points[f"{side}_eye"] for side in ("left", "right")}
    between = (eyes["left"] + eyes["right"]) / 2
    mouth = points["nose"] + 0.8 * (points["nose"] - between)
    middle = {"eye": between, "nose": points["nose"], "mouth": mouth, "lip": mouth}
    found = {"jaw": (mouth + points["head"]) / 2, "left_eye_smplhf": eyes["left"], "right_eye_smplhf": eyes["right"]}
    for name in joint_set("smplx127").joints[-51:]:
        side = next((side for side in eyes if name.startswith(side)), None)
        part = next(part for part in middle if part in name)
        sideways = 0.0 if side is None else {"eye": 1.0, "nose": 0.3, "mouth": 0.6, "lip": 0.4}[part]
        found[name] = middle[part] + sideways * ((eyes[side] - between) if side else 0.0)
    return found
