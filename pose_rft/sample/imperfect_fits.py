"""SMPL fits with the errors of published fits: close to the recorded joints, never exactly on them.

Joints regressed from NeuralAnnot's and MoSh's bodies miss Human3.6M's own by 20 to 35 mm: mostly a constant bias per
subject (different skeleton, markers off the bones) plus a little noise in each frame. The miniature's images and
recorded joints come from the true body; only the fit is off.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import H36M17, SMPL24
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.sample.people import Person

SUBJECT_TURN, FRAME_TURN = 2.1, 1.2  # standard deviation of the rotation about each axis of each joint, degrees
# Rotating the trunk moves everything above it, so fits err less there.
STIFF = np.array([[0.4 if name in ("pelvis", "spine1", "spine2", "spine3") else 1.0] for name in SMPL24.joints])
SUBJECT_BETA = 0.2
FRAME_SHIFT = 0.006  # metres
PELVIS = H36M17.index("pelvis")


@dataclass(frozen=True, eq=False)
class Habit:
    """The error shared by all fits of a subject: offsets turns (24, 3), axis-angle, and betas (10,)."""

    turns: np.ndarray
    betas: np.ndarray


@dataclass(frozen=True, eq=False)
class Fit:
    """rotations (24, 3, 3), betas (10,), transl (3,) as in `Person`; pelvis (3,): the joint's position in the rest
    pose, about which SMPL applies the root rotation."""

    rotations: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    pelvis: np.ndarray


def habit(rng: np.random.Generator) -> Habit:
    """Draws the error that all fits of a subject share."""
    turns = STIFF * rng.normal(0, np.deg2rad(SUBJECT_TURN), (len(SMPL24), 3))
    return Habit(turns, rng.normal(0, SUBJECT_BETA, 10))


def fit(person: Person, habit: Habit, rng: np.random.Generator, body: NumpyBody) -> Fit:
    """Returns the fit of one frame; its regressed pelvis is within millimetres of the true one."""
    turns = habit.turns + STIFF * rng.normal(0, np.deg2rad(FRAME_TURN), habit.turns.shape)
    rotations = person.rotations @ Rotation.from_rotvec(turns).as_matrix()
    betas = np.clip(person.identity.betas + habit.betas, -3, 3)
    vertices, joints = body.vertices(rotations, betas, np.zeros(3))
    there, here = body.h36m_joints(person.vertices)[PELVIS], body.h36m_joints(vertices)[PELVIS]
    transl = there.astype(np.float64) - here + rng.normal(0, FRAME_SHIFT, 3)
    return Fit(rotations, betas, transl, joints[0])
