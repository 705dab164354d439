"""The joints that a test set is evaluated on: Table 1's 14 from the regressor, or those of its own protocol.

Prediction and truth are treated alike, each aligned at its own pelvis. EMDB: the 24 joints of SMPL relative to the
midpoint of the hips (eth-ait/emdb:evaluation_metrics.py, yohanshin/WHAM:lib/eval/evaluate_emdb.py). ChatPose's
reasoning images: the 22 body joints that SMPL and SMPL-X share, relative to the pelvis (jjunsss/RPE-Refined:README.md,
`--num_joints 22` of the fitted joints; it does not name the origin).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pose_rft.body.joints import SMPL24
from pose_rft.body.smpl import BodyModel

JointReader = Callable[[BodyModel, Tensor, Tensor | None], Tensor]
"""(body, rotations (N, 24, 3, 3), betas (N, 10) or None for the mean shape) → (N, J, 3) metres, pelvis-aligned."""

POSES_AT_ONCE = 256
BODY_JOINTS = 22  # without the hands
HIPS = SMPL24.indices(("left_hip", "right_hip"))


@torch.no_grad()
def eval_joints(body: BodyModel, rotations: Tensor, betas: Tensor | None = None) -> Tensor:
    """`BodyModel.eval_joints` in chunks: (N, 24, 3, 3) → (N, 14, 3)."""
    pieces = range(0, len(rotations), POSES_AT_ONCE)
    part = [slice(first, first + POSES_AT_ONCE) for first in pieces]
    return torch.cat([body.eval_joints(rotations[p], None if betas is None else betas[p]) for p in part])


@torch.no_grad()
def emdb_joints(body: BodyModel, rotations: Tensor, betas: Tensor | None = None) -> Tensor:
    """(N, 24, 3, 3) → (N, 24, 3) relative to the midpoint of the hips."""
    joints = body.joints(rotations, betas)
    return joints - joints[:, list(HIPS)].mean(1, keepdim=True)


@torch.no_grad()
def body_joints(body: BodyModel, rotations: Tensor, betas: Tensor | None = None) -> Tensor:
    """(N, 24, 3, 3) → (N, 22, 3) relative to the pelvis."""
    joints = body.joints(rotations, betas)[:, :BODY_JOINTS]
    return joints - joints[:, :1]


PROTOCOLS: dict[str, JointReader] = {"emdb": emdb_joints, "chatpose": body_joints}


def joint_reader(name: str) -> JointReader:
    """The joint reader of a set `DATASET/SPLIT`."""
    return PROTOCOLS.get(name.partition("/")[0], eval_joints)
