"""Joint sets: the orders in which data sets and body models list their joints.

A joint set names its joints, so that no code writes `[8]` for an ankle. Orders are those of the releases
(Human3.6M CDF files, MPI-INF-3DHP `annot.mat` and test set, COCO, MPII, OpenPose-18 of 3DPW, BEDLAM's 127 of SMPL-X);
left and right are the person's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pose_rft.errors import PoseRftError


@dataclass(frozen=True)
class JointSet:
    """Joint names in order; parents (-1 = root) if the set is a tree; flip[i] = index of the mirrored joint i."""

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...] | None
    flip: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.joints)

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        return {joint: i for i, joint in enumerate(self.joints)}

    def index(self, joint: str) -> int:
        """Returns the index of a joint.

        Raises:
            KeyError: the set has no such joint.
        """
        return self._positions[joint]

    def indices(self, joints: Sequence[str]) -> list[int]:
        """Returns the indices of several joints."""
        return [self.index(joint) for joint in joints]

    def __contains__(self, joint: str) -> bool:
        return joint in self._positions


def mirrored_name(joint: str) -> str:
    """Swaps left and right: `left_knee` ↔ `right_knee`; names without a side are unchanged."""
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if joint.startswith(side):
            return other + joint.removeprefix(side)
    return joint


def _words(*lines: str) -> list[str]:
    return [word for line in lines for word in line.split()]


def _joint_set(name: str, joints: Sequence[str] | str, parents: Sequence[int] | None = None) -> JointSet:
    joints = _words(joints) if isinstance(joints, str) else joints
    flip = tuple(joints.index(mirrored_name(joint)) for joint in joints)
    return JointSet(name, tuple(joints), tuple(parents) if parents is not None else None, flip)


_SMPL_BODY = _words(
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist"
)
_SMPL_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]

SMPL24 = _joint_set("smpl24", [*_SMPL_BODY, "left_hand", "right_hand"], _SMPL_PARENTS)

# The 32 joints of Human3.6M's CDF files include duplicates: spine0 = pelvis, the collars = neck, hands = wrists.
H36M32 = _joint_set(
    "h36m32",
    (
        "pelvis right_hip right_knee right_ankle right_toe right_toe_end left_hip left_knee left_ankle left_toe "
        "left_toe_end spine0 spine neck nose head_top left_collar left_shoulder left_elbow left_wrist left_thumb "
        "left_thumb_end left_wrist_end left_hand_end right_collar right_shoulder right_elbow right_wrist right_thumb "
        "right_thumb_end right_wrist_end right_hand_end"
    ),
    [-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14, 12, 16, 17, 18, 19, 20, 19, 22,
     12, 24, 25, 26, 27, 28, 27, 30],
)  # fmt: skip

# The 17 that move, right leg first. SPIN's J_regressor_h36m.npy lists the left leg first: model_file.py reorders it.
H36M17 = _joint_set(
    "h36m17",
    (
        "pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle spine neck nose head_top "
        "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"
    ),
    [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15],
)

# The 14 joints of Table 1 in LSP order, all of them in H36M17 (SPIN constants.py, first 14 of H36M_TO_J17).
LSP14 = _joint_set(
    "lsp14",
    (
        "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow right_shoulder "
        "left_shoulder left_elbow left_wrist neck head_top"
    ),
)

MPI28 = _joint_set(
    "mpi28",
    (
        "spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow left_wrist "
        "left_hand right_clavicle right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle "
        "left_foot left_toe right_hip right_knee right_ankle right_foot right_toe"
    ),
    [2, 0, 3, 4, -1, 1, 5, 6, 5, 8, 9, 10, 11, 5, 13, 14, 15, 16, 4, 18, 19, 20, 21, 4, 23, 24, 25, 26],
)

# MPI-INF-3DHP's test set (annot_data.mat).
MPI17 = _joint_set(
    "mpi17",
    (
        "head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
        "right_ankle left_hip left_knee left_ankle pelvis spine head"
    ),
    [16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1],
)

COCO17 = _joint_set(
    "coco17",
    (
        "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
        "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
    ),
)

MPII16 = _joint_set(
    "mpii16",
    (
        "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck head_top right_wrist "
        "right_elbow right_shoulder left_shoulder left_elbow left_wrist"
    ),
    [1, 2, 6, 6, 3, 4, -1, 6, 7, 8, 11, 12, 7, 7, 13, 14],
)

# SPIN's 24 (`part` and `S` of its label files): LSP's 14, then the MPII, H36M and COCO joints that LSP lacks.
SPIN24 = _joint_set(
    "spin24",
    [
        *LSP14.joints,
        *_words("pelvis thorax spine jaw head nose left_eye right_eye left_ear right_ear"),
    ],
)

OPENPOSE18 = _joint_set(
    "openpose18",
    (
        "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
        "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
    ),
)


def _smplx127() -> list[str]:
    """Body, face bones, 30 finger bones, 21 surface points, 51 face landmarks, with smplx's own names."""
    fingers = [f"{f}{i}" for f in ("index", "middle", "pinky", "ring", "thumb") for i in (1, 2, 3)]
    tips = ("thumb", "index", "middle", "ring", "pinky")
    face = (
        [f"right_eye_brow{i}" for i in range(1, 6)]
        + [f"left_eye_brow{i}" for i in range(5, 0, -1)]
        + _words("nose1 nose2 nose3 nose4 right_nose_2 right_nose_1 nose_middle left_nose_1 left_nose_2")
        + [f"right_eye{i}" for i in range(1, 7)]
        + [f"left_eye{i}" for i in (4, 3, 2, 1, 6, 5)]
        + _words(
            "right_mouth_1 right_mouth_2 right_mouth_3 mouth_top left_mouth_3 left_mouth_2 left_mouth_1",
            "left_mouth_5 left_mouth_4 mouth_bottom right_mouth_4 right_mouth_5",
            "right_lip_1 right_lip_2 lip_top left_lip_2 left_lip_1 left_lip_3 lip_bottom right_lip_3",
        )
    )
    return [
        *_SMPL_BODY,
        *("jaw", "left_eye_smplhf", "right_eye_smplhf"),
        *(f"{side}_{finger}" for side in ("left", "right") for finger in fingers),
        *("nose", "right_eye", "left_eye", "right_ear", "left_ear"),
        *(f"{side}_{point}" for side in ("left", "right") for point in ("big_toe", "small_toe", "heel")),
        *(f"{side}_{tip}" for side in ("left", "right") for tip in tips),
        *face,
    ]


SMPLX127 = _joint_set("smplx127", _smplx127())

_SETS = {
    s.name: s for s in (SMPL24, H36M32, H36M17, LSP14, MPI28, MPI17, COCO17, MPII16, SPIN24, OPENPOSE18, SMPLX127)
}  # fmt: skip


def joint_set(name: str) -> JointSet:
    """Returns the joint set of this name, as stored in a record's `joint_set`.

    Raises:
        PoseRftError: no joint set has this name.
    """
    if name not in _SETS:
        raise PoseRftError(f"Joint set {name!r} is unknown; known sets are {', '.join(_SETS)}.")
    return _SETS[name]


LIMB_JOINTS = tuple(
    f"{side}_{part}" for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist") for side in ("left", "right")
)
# Joints of each set at the same location as SMPL's joint of that name. Other shared names mean other locations: MPII's
# and H36M's pelvis lies between the hips (SMPL's is higher); 3DHP defines its own spines, hands, feet and heads.
_ALIKE: dict[str, tuple[str, ...]] = {
    "smpl24": SMPL24.joints,
    "smplx127": tuple(_SMPL_BODY),
    "coco17": LIMB_JOINTS,
    "mpii16": LIMB_JOINTS,
    **dict.fromkeys(("h36m32", "h36m17", "mpi28", "mpi17", "openpose18", "lsp14", "spin24"), (*LIMB_JOINTS, "neck")),
}


def to_smpl24(points: np.ndarray, source: JointSet | str) -> tuple[np.ndarray, np.ndarray]:
    """Reorders points of any joint set to SMPL's order.

    Args:
        points: (..., J, C), any unit, J = len(source).
    Returns:
        points (..., 24, C), zero for joints that the set lacks, and valid (24,) bool, True for joints that it has.
    """
    source = joint_set(source) if isinstance(source, str) else source
    if points.shape[-2] != len(source):
        raise ValueError(f"{points.shape[-2]} points for the {len(source)} joints of {source.name}")
    mapped = np.zeros((*points.shape[:-2], len(SMPL24), points.shape[-1]), points.dtype)
    valid = np.zeros(len(SMPL24), dtype=bool)
    alike = _ALIKE[source.name]
    target = SMPL24.indices(alike)
    mapped[..., target, :] = points[..., source.indices(alike), :]
    valid[target] = True
    return mapped, valid
