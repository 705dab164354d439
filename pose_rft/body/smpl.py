"""The SMPL body: reads a model file, poses it through `smplx`, regresses the joints of the evaluation.

Model files are the official ones (v1.0.0 with chumpy inside, v1.1.0) or the stand-in of `pose_rft.sample.standin`,
which has the same form but other vertices: nothing here counts on 6,890. The restricted unpickler reads the file and
smplx gets its content, never a path. Only the arrays' shapes are trusted after they have been checked.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from pose_rft.body.joints import H36M17, LSP14, SMPL24
from pose_rft.errors import PoseRftError
from pose_rft.io.unpickle import plain, read_pickle

Gender = Literal["neutral", "male", "female"]
BETAS = 10
POSE_BASIS = 207  # 23 joints × 9
# smplx picks nose, toes, heels and finger tips by vertex number, up to 6787 (smplx/vertex_ids.py).
FEWEST_VERTICES = 6788
REGRESSOR = "J_regressor_h36m.npy"
STANDIN_CARD = "standin.json"
WHERE_TO_GET = "register at https://smpl.is.tue.mpg.de to get it, or set data.source to `sample` for the stand-in"

_LETTER: Mapping[str, str] = {"neutral": "neutral", "male": "m", "female": "f"}


def accepted_names(gender: Gender) -> tuple[str, ...]:
    """File names under which the official releases and peers keep a model (compared without case)."""
    letter = _LETTER[gender]
    return (
        f"SMPL_{gender.upper()}.pkl",
        f"basicModel_{letter}_lbs_10_207_0_v1.0.0.pkl",
        f"basicmodel_{letter}_lbs_10_207_0_v1.1.0.pkl",
    )


def find_model_file(folder: Path, gender: Gender) -> Path:
    """The model file of one gender in `folder/smpl`.

    Raises:
        PoseRftError: there is none.
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
    """Checked content of an SMPL file: metres, rest pose, y up, z front, x to the person's left.

    v_template (V, 3), shapedirs (V, 3, 10), posedirs (V, 3, 207), J_regressor (24, V), weights (V, 24) float32;
    faces (F, 3) int64.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    J_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray


def read_model_file(path: Path) -> ModelArrays:
    """Reads and checks one SMPL pickle.

    Raises:
        PoseRftError: not a pickle of plain data, a key missing, a wrong shape, or not SMPL's 24-joint tree.
    """
    if path.is_file() and path.read_bytes()[:2] == b"PK":
        raise PoseRftError(f"{path} is an npz container, expected a pickle as SMPL is released; {WHERE_TO_GET}.")
    content = read_pickle(path)
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
        if not np.isfinite(arrays[key]).all():
            raise PoseRftError(f"{path}: {key} holds a number that is not finite; get the file again.")
    return ModelArrays(
        **{key: arrays[key] for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")},
        faces=faces.astype(np.int64),
    )


def _dense(value: object, path: Path, key: str) -> np.ndarray:
    value = value.toarray() if scipy.sparse.issparse(value) else plain(value)  # type: ignore[attr-defined]
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise PoseRftError(f"{path}: {key} holds {array.dtype} values, expected numbers.")
    return array


def read_regressor(folder: Path, v_template: np.ndarray) -> np.ndarray | None:
    """J_regressor_h36m.npy as (17, V) float32 in the order of `H36M17`; None if there is no such file.

    SPIN's file lists the left leg first, others the right; the rest pose (left has x > 0) tells which one this is.

    Raises:
        PoseRftError: not an array file, or not (17, V) for this body model.
    """
    path = folder / REGRESSOR
    if not path.is_file():
        return None
    try:
        regressor = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise PoseRftError(f"{path} is not a readable array ({error}); get it again.") from None
    expected = (len(H36M17), len(v_template))
    if not isinstance(regressor, np.ndarray) or regressor.shape != expected:
        shape = getattr(regressor, "shape", "several arrays")
        raise PoseRftError(
            f"{path} has shape {shape}, expected {expected} for this body model of {len(v_template)} vertices; "
            "take the regressor that belongs to the model file."
        )
    regressor = regressor.astype(np.float32)
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


def load_body_model(folder: Path, gender: Gender = "neutral") -> "BodyModel":
    """The body model of one gender.

    Args:
        folder: `data.body_model`, with `smpl/SMPL_NEUTRAL.pkl` (or another accepted name) and J_regressor_h36m.npy.
    Raises:
        PoseRftError: the file is missing or is not an SMPL model; the regressor does not fit it.
    """
    arrays = read_model_file(find_model_file(folder, gender))
    return BodyModel(arrays, read_regressor(folder, arrays.v_template), folder, gender)


Method = TypeVar("Method", bound=Callable[..., Tensor])


def _full_precision(method: Method) -> Method:
    """Runs in float32 also under autocast and for bf16 rotations: bf16 would cost millimetres."""

    @functools.wraps(method)
    def precise(self: "BodyModel", first: Tensor, *others: Tensor | None, **named: Tensor | None) -> Tensor:
        def lift(value: Tensor | None) -> Tensor | None:
            return value.float() if value is not None and value.dtype in (torch.bfloat16, torch.float16) else value

        with torch.autocast(first.device.type, enabled=False):
            return method(self, lift(first), *map(lift, others), **{name: lift(value) for name, value in named.items()})

    return precise  # type: ignore[return-value]


class BodyModel(nn.Module):
    """A frozen SMPL body in float32, metres. Rotations are local, joint 0 = root in any frame; the output is in it.

    Leading dimensions are free wherever `...` stands.
    """

    def __init__(self, arrays: ModelArrays, regressor: np.ndarray | None, folder: Path, gender: Gender) -> None:
        super().__init__()
        import smplx
        from smplx.utils import Struct

        self.folder, self.gender, self.is_standin = folder, gender, is_standin(folder)
        self.name = "anny-standin" if self.is_standin else "smpl"
        assert SMPL24.parents is not None
        self.parents = SMPL24.parents
        kintree = np.array([[2**32 - 1, *self.parents[1:]], range(len(SMPL24))], dtype=np.uint32)
        content = {
            key: getattr(arrays, key) for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
        }
        without = dict.fromkeys(("betas", "global_orient", "body_pose", "transl"), False)
        with contextlib.redirect_stdout(io.StringIO()):  # smplx prints that ten betas are few
            self.smplx = smplx.SMPL(
                "",
                data_struct=Struct(**content, f=arrays.faces, kintree_table=kintree),
                num_betas=BETAS,
                **{f"create_{name}": create for name, create in without.items()},
            )
        self.num_vertices = len(arrays.v_template)

        def keep(name: str, value: np.ndarray) -> None:
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)), persistent=False)

        keep("faces", arrays.faces)
        keep("_rest", arrays.J_regressor @ arrays.v_template)
        keep("_rest_per_beta", np.einsum("jv,vck->jck", arrays.J_regressor, arrays.shapedirs, optimize=True))
        self._levels = _levels(self.parents)
        self._level_order = np.argsort(np.concatenate([joints for joints, _ in self._levels])).tolist()
        self.has_regressor = regressor is not None
        if regressor is not None:
            keep("_regressor", regressor)
            # The evaluation needs few vertices: those that the rows of the 14 joints and the pelvis touch.
            rows = regressor[[H36M17.index("pelvis"), *H36M17.indices(LSP14.joints)]]
            touched = np.flatnonzero(rows.any(0))
            keep("_eval_regressor", rows[:, touched])
            keep("_eval_template", arrays.v_template[touched])
            keep("_eval_shapedirs", arrays.shapedirs[touched])
            keep("_eval_posedirs", arrays.posedirs[touched])
            keep("_eval_weights", arrays.weights[touched])

    faces: Tensor
    _rest: Tensor
    _rest_per_beta: Tensor
    _regressor: Tensor
    _eval_regressor: Tensor
    _eval_template: Tensor
    _eval_shapedirs: Tensor
    _eval_posedirs: Tensor
    _eval_weights: Tensor

    def rest_joints(self, betas: Tensor | None = None) -> Tensor:
        """(..., 24, 3) joints of the rest pose for betas (..., 10); (1, 24, 3) of the mean shape without."""
        return self._rest.unsqueeze(0) if betas is None else self._rest + _of_betas(self._rest_per_beta, betas)

    @_full_precision
    def joints(self, rotations: Tensor, betas: Tensor | None = None, transl: Tensor | None = None) -> Tensor:
        """(..., 24, 3, 3), betas (..., 10), transl (..., 3) → (..., 24, 3). The chain only: cheap, differentiable."""
        return self._chain(rotations, betas, transl)[0]

    def _chain(
        self, rotations: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Joints (..., 24, 3), global rotations (..., 24, 3, 3), rest joints; one product per level of the tree."""
        rest = (self._rest if betas is None else self.rest_joints(betas)).to(rotations.dtype)
        bones = rest - torch.cat((torch.zeros_like(rest[..., :1, :]), rest[..., list(self.parents[1:]), :]), dim=-2)
        turn = rotations[..., :1, :, :]
        place = bones[..., :1, :].expand(*turn.shape[:-2], 3)
        turns, places = [turn], [place]
        for joints, parents in self._levels[1:]:
            above = turn[..., parents, :, :]
            place = place[..., parents, :] + (above @ bones[..., joints, :].unsqueeze(-1)).squeeze(-1)
            turn = above @ rotations[..., joints, :, :]
            turns.append(turn)
            places.append(place)
        posed = torch.cat(places, dim=-2)[..., self._level_order, :]
        if transl is not None:
            posed = posed + transl.unsqueeze(-2)
        return posed, torch.cat(turns, dim=-3)[..., self._level_order, :, :], rest

    @_full_precision
    def vertices(self, rotations: Tensor, betas: Tensor | None = None, transl: Tensor | None = None) -> Tensor:
        """(B, 24, 3, 3), betas (B, 10), transl (B, 3) → (B, V, 3), by smplx."""
        betas = rotations.new_zeros(len(rotations), BETAS) if betas is None else betas
        posed = self.smplx(
            betas=betas,
            global_orient=rotations[:, :1],
            body_pose=rotations[:, 1:],
            transl=transl,
            pose2rot=False,
        )
        return posed.vertices

    @_full_precision
    def h36m_joints(self, vertices: Tensor) -> Tensor:
        """(..., V, 3) → (..., 17, 3) in the order of `H36M17`, by J_regressor_h36m.

        Raises:
            PoseRftError: the body model came without the regressor.
        """
        self._require_regressor()
        return self._regressor @ vertices

    @_full_precision
    def eval_joints(self, rotations: Tensor, betas: Tensor | None = None) -> Tensor:
        """The 14 joints of Table 1 (`LSP14`) relative to the regressed pelvis (SPIN `eval.py`).

        Args:
            rotations: (..., 24, 3, 3); betas: (..., 10).
        Returns:
            (..., 14, 3) metres, in the frame of the root rotation. Skins only the vertices that the regressor touches.
        Raises:
            PoseRftError: the body model came without the regressor.
        """
        self._require_regressor()
        posed, turns, rest = self._chain(rotations, betas)
        points = self._eval_template
        if betas is not None:
            points = points + _of_betas(self._eval_shapedirs, betas)
        features = (rotations[..., 1:, :, :] - torch.eye(3, device=rotations.device, dtype=rotations.dtype)).flatten(-3)
        points = points + (self._eval_posedirs @ features[..., None, :, None]).squeeze(-1)
        shift = posed - (turns @ rest.unsqueeze(-1)).squeeze(-1)
        per_vertex = (self._eval_weights @ turns.flatten(-2)).unflatten(-1, (3, 3))
        points = (per_vertex @ points.unsqueeze(-1)).squeeze(-1) + self._eval_weights @ shift
        joints = self._eval_regressor @ points
        return joints[..., 1:, :] - joints[..., :1, :]

    def _require_regressor(self) -> None:
        if not self.has_regressor:
            raise PoseRftError(
                f"{self.folder / REGRESSOR} does not exist, but the evaluation joints need it; "
                "take it from SPIN's data archive (https://github.com/nkolot/SPIN, fetch_data.sh)."
            )


def _of_betas(directions: Tensor, betas: Tensor) -> Tensor:
    """directions (N, 3, 10), betas (..., 10) → offsets (..., N, 3)."""
    return (directions @ betas[..., None, :, None].to(directions.dtype)).squeeze(-1)


def _levels(parents: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The tree by depth: (joints of the level, place of each one's parent among the joints of the level above)."""
    levels: list[tuple[list[int], list[int]]] = [([0], [])]
    while sum(len(joints) for joints, _ in levels) < len(parents):
        above = levels[-1][0]
        joints = [joint for joint, parent in enumerate(parents) if parent in above]
        levels.append((joints, [above.index(parents[joint]) for joint in joints]))
    return levels
