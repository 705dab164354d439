"""SMPL fits that err as published ones do: near the recorded joints, never on them.

NeuralAnnot's and MoSh's bodies miss Human3.6M's own joints by 20 to 35 mm after the joint regressor, mostly in the same
direction for all frames of a subject (another skeleton, markers off the bones) and a little in each frame. Pictures and
recorded joints of the miniature are of the true body; only the fit is off.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import H36M17, SMPL24
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.sample.people import Person

SUBJECT_TURN, FRAME_TURN = 2.1, 1.2  # degrees about each axis of each joint, standard deviations
# A turn of the trunk moves everything above it, so fits err less there.
STIFF = np.array([[0.4 if name in ("pelvis", "spine1", "spine2", "spine3") else 1.0] for name in SMPL24.joints])
SUBJECT_BETA = 0.2
FRAME_SHIFT = 0.006  # metres
PELVIS = H36M17.index("pelvis")


@dataclass(frozen=True, eq=False)
class Habit:
    """What all fits of a subject have in common: turns (24, 3) axis-angle and betas (10,) that come on top."""

    turns: np.ndarray
    betas: np.ndarray


@dataclass(frozen=True, eq=False)
class Fit:
    """rotations (24, 3, 3), betas (10,), transl (3,) as `Person` has them; pelvis (3,): the joint's place in the rest
    pose, about which SMPL turns."""

    rotations: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    pelvis: np.ndarray


def habit(rng: np.random.Generator) -> Habit:
    """The habit by which all fits of a subject miss the truth."""
    turns = STIFF * rng.normal(0, np.deg2rad(SUBJECT_TURN), (len(SMPL24), 3))
    return Habit(turns, rng.normal(0, SUBJECT_BETA, 10))


def fit(person: Person, habit: Habit, rng: np.random.Generator, body: NumpyBody) -> Fit:
    """The fit of one frame; its pelvis, as the regressor has it, is within millimetres of the true one."""
    turns = habit.turns + STIFF * rng.normal(0, np.deg2rad(FRAME_TURN), habit.turns.shape)
    rotations = person.rotations @ Rotation.from_rotvec(turns).as_matrix()
    betas = np.clip(person.identity.betas + habit.betas, -3, 3)
    vertices, joints = body.vertices(rotations, betas, np.zeros(3))
    there, here = body.h36m_joints(person.vertices)[PELVIS], body.h36m_joints(vertices)[PELVIS]
    transl = there.astype(np.float64) - here + rng.normal(0, FRAME_SHIFT, 3)
    return Fit(rotations, betas, transl, joints[0])
