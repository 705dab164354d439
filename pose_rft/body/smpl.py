"""The SMPL body in torch: poses the body with `smplx` and regresses the evaluation joints.

smplx receives the file's content (`pose_rft.body.model_file`), never a path. Works for SMPL and for the stand-in.
"""

import contextlib
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pose_rft.body.joints import H36M17, LSP14, SMPL24
from pose_rft.body.model_file import (
    BETAS,
    REGRESSOR,
    Gender,
    ModelArrays,
    find_model_file,
    is_standin,
    read_model_file,
    read_regressor,
)
from pose_rft.errors import PoseRftError


def load_body_model(folder: Path, gender: Gender = "neutral") -> "BodyModel":
    """Loads the body model of one gender.

    Args:
        folder: `data.body_model`, with `smpl/SMPL_NEUTRAL.pkl` (or another accepted name) and J_regressor_h36m.npy.
    Raises:
        PoseRftError: the file is missing or is not an SMPL model; the regressor does not fit it.
    """
    arrays = read_model_file(find_model_file(folder, gender))
    return BodyModel(arrays, read_regressor(folder, arrays.v_template), folder, gender)


Method = TypeVar("Method", bound=Callable[..., Tensor])


def _full_precision(method: Method) -> Method:
    """Runs in float32 even under autocast and for bf16 rotations: bf16 would cause errors of millimetres."""

    @functools.wraps(method)
    def precise(self: "BodyModel", first: Tensor, *others: Tensor | None, **named: Tensor | None) -> Tensor:
        def lift(value: Tensor | None) -> Tensor | None:
            return value.float() if value is not None and value.dtype in (torch.bfloat16, torch.float16) else value

        with torch.autocast(first.device.type, enabled=False):
            return method(self, lift(first), *map(lift, others), **{name: lift(value) for name, value in named.items()})

    return precise  # type: ignore[return-value]


class BodyModel(nn.Module):
    """A frozen SMPL body in float32, metres.

    Rotations are local, the root's (joint 0) relative to any outer frame; the output is in that outer frame.
    `...` stands for any leading dimensions.
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
        keep("_rest", arrays.rest)
        keep("_rest_per_beta", arrays.rest_per_beta)
        self._levels = _levels(self.parents)
        self._level_order = np.argsort(np.concatenate([joints for joints, _ in self._levels])).tolist()
        self.has_regressor = regressor is not None
        if regressor is not None:
            keep("_regressor", regressor)
            # The evaluation needs few vertices: those with regressor weights for the 14 joints or the pelvis.
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
        """Rest-pose joints (..., 24, 3) for betas (..., 10); without betas (1, 24, 3), of the mean shape."""
        return self._rest.unsqueeze(0) if betas is None else self._rest + _of_betas(self._rest_per_beta, betas)

    @_full_precision
    def joints(self, rotations: Tensor, betas: Tensor | None = None, transl: Tensor | None = None) -> Tensor:
        """(..., 24, 3, 3), betas (..., 10), transl (..., 3) → (..., 24, 3). Kinematics only: cheap, differentiable."""
        return self._chain(rotations, betas, transl)[0]

    def _chain(
        self, rotations: Tensor, betas: Tensor | None = None, transl: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Joints (..., 24, 3), global rotations (..., 24, 3, 3), rest joints; one matrix product per tree level."""
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
        points = points + (features @ self._eval_posedirs.flatten(0, 1).T).unflatten(-1, (-1, 3))  # one product for all
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
    """Returns the tree by depth: (joints of a level, index of each joint's parent within the level above)."""
    levels: list[tuple[list[int], list[int]]] = [([0], [])]
    while sum(len(joints) for joints, _ in levels) < len(parents):
        above = levels[-1][0]
        joints = [joint for joint, parent in enumerate(parents) if parent in above]
        levels.append((joints, [above.index(parents[joint]) for joint in joints]))
    return levels
