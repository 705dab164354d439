"""BVH: the skeleton's bones in centimetres, then a line of numbers for each pose.

The channels are those that most programs expect: the root's position, and each joint's rotation as intrinsic Z, X, Y
Euler angles in degrees. Axes: y up, z towards the viewer. The format has no place for a licence note;
`predict/exports.py` writes one beside the file. Source: the Biovision format as H. Lander describes it (1998).
"""

from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import SMPL24
from pose_rft.export.motion import Motion, Rig, upright

CENTIMETRES = 100.0
ORDER = "ZXY"
TIP = 0.05  # metres from a leaf joint to the end of its bone


def bvh(motion: Motion, rig: Rig) -> str:
    """Returns the file's text; a video's motion is resampled to a constant frame rate."""
    motion, rate = motion.even()
    rotations, pelvis = upright(motion, rig)
    angles = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_euler(ORDER, degrees=True).reshape(len(pelvis), 24, 3)
    order = list(_depth_first(rig, 0))
    numbers = np.concatenate([pelvis * CENTIMETRES, angles[:, order].reshape(len(pelvis), -1)], 1)
    lines = [*_joint(rig, 0, 0), "MOTION", f"Frames: {len(pelvis)}", f"Frame Time: {1 / rate:.8f}"]
    return "\n".join(["HIERARCHY", *lines, *(" ".join(f"{value:.6f}" for value in row) for row in numbers)]) + "\n"


def _children(rig: Rig, joint: int) -> list[int]:
    return [child for child, parent in enumerate(rig.parents) if child and parent == joint]


def _depth_first(rig: Rig, joint: int) -> Iterator[int]:
    yield joint
    for child in _children(rig, joint):
        yield from _depth_first(rig, child)


def _joint(rig: Rig, joint: int, depth: int) -> Iterator[str]:
    indent = "\t" * depth
    bone = rig.bones()[joint] * CENTIMETRES
    offset = np.zeros(3) if joint == 0 else bone  # the root's position is in its channels
    turns = " ".join(f"{axis}rotation" for axis in ORDER)
    yield f"{indent}{'JOINT' if joint else 'ROOT'} {SMPL24.joints[joint]}"
    yield f"{indent}{{"
    yield f"{indent}\tOFFSET {_numbers(offset)}"
    yield f"{indent}\tCHANNELS {3 if joint else 6} {'' if joint else 'Xposition Yposition Zposition '}{turns}"
    children = _children(rig, joint)
    for child in children:
        yield from _joint(rig, child, depth + 1)
    if not children:
        tip = bone / np.linalg.norm(bone) * TIP * CENTIMETRES
        yield from (f"{indent}\tEnd Site", f"{indent}\t{{", f"{indent}\t\tOFFSET {_numbers(tip)}", f"{indent}\t}}")
    yield f"{indent}}}"


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in values)
