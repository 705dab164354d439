"""What an annotator would notice about a pose: posture, limbs and gestures in a few plain categories.

`human_captions` writes its captions from them. They describe whole limbs and gestures (a hand on the hip, arms
crossed, a leg kicked out), whereas the automatic captions measure single joints. Thresholds are chosen so that
neighbouring categories read alike; nothing else depends on them. Frames: `pose_rft.captions.geometry`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from pose_rft.captions.geometry import SIDES, Body, pose_bodies
from pose_rft.captions.predicates import Posture, all_predicates

Side = Literal["left", "right"]
Bend = Literal["straight", "slightly bent", "bent", "folded"]

# Whole-arm directions (outward, up, front) in the chest frame, by name.
ARM_DIRECTIONS = {
    "down": (0.12, -1.0, 0.05),
    "overhead": (0.1, 1.0, 0.1),
    "out": (1.0, 0.0, 0.0),
    "up and out": (0.75, 0.75, 0.0),
    "down and out": (0.65, -0.75, 0.0),
    "forward": (0.1, 0.0, 1.0),
    "forward and up": (0.1, 0.75, 0.75),
    "forward and down": (0.1, -0.75, 0.7),
    "forward and out": (0.75, 0.0, 0.75),
    "back": (0.15, -0.3, -1.0),
    "back and down": (0.15, -0.85, -0.6),
    "across": (-0.9, -0.2, 0.6),
    "across and up": (-0.6, 0.7, 0.5),
}
# Thigh directions (outward, up, front) in the pelvis frame, by name.
THIGH_DIRECTIONS = {
    "down": (0.05, -1.0, 0.05),
    "slightly forward": (0.05, -0.87, 0.5),
    "forward": (0.1, -0.1, 1.0),
    "high": (0.1, 0.6, 0.8),
    "back": (0.05, -0.85, -0.55),
    "out": (0.85, -0.5, 0.1),
    "slightly out": (0.4, -0.92, 0.05),
    "forward and out": (0.7, -0.25, 0.7),
    "inward": (-0.4, -0.85, 0.3),
}


@dataclass(frozen=True)
class Arm:
    """touches: what the hand rests on or is close to; None if the hand is free, in which case `direction` counts."""

    direction: str
    bend: Bend
    touches: str | None


@dataclass(frozen=True)
class Leg:
    """Direction of the thigh and bend of the knee."""

    direction: str
    bend: Bend


class Observation:
    """Categories of one pose: rotations (24, 3, 3), AMASS frame without heading; rest_joints (24, 3), metres."""

    def __init__(self, rotations: np.ndarray, rest_joints: np.ndarray) -> None:
        self.body: Body = pose_bodies(np.asarray(rotations)[None], rest_joints)
        self.facts = all_predicates(self.body)[0]

    @property
    def posture(self) -> Posture:
        """The posture in a word."""
        return self.facts.posture

    @cached_property
    def arms(self) -> tuple[Arm, Arm]:
        """Left, right."""
        reach = self.body.seen_from("spine3", self.body.pair("wrist") - self.body.pair("shoulder"))[0]
        reach = reach * np.array([[1.0, 1, 1], [-1, 1, 1]])
        left, right = (
            Arm(nearest(reach[i], ARM_DIRECTIONS), bend_of(self.body.elbow_flexion[0, i]), self._touch(i))
            for i in range(2)
        )
        return left, right

    @cached_property
    def legs(self) -> tuple[Leg, Leg]:
        """Left, right."""
        left, right = (
            Leg(nearest(self.body.thighs[0, i], THIGH_DIRECTIONS), bend_of(self.body.knee_flexion[0, i]))
            for i in range(2)
        )
        return left, right

    @cached_property
    def hands_meet(self) -> bool:
        """Whether the hands touch each other."""
        return float(np.linalg.norm(self._point("left_hand") - self._point("right_hand"))) < 0.17

    @cached_property
    def arms_crossed(self) -> bool:
        """Both forearms lie across the front of the trunk and the hands reach the middle."""
        hands = self.body.seen_from("spine3", self.body.pair("hand") - self.body.joint("spine3")[:, None])[0]
        reach = hands[:, 0] * (1.0, -1.0)
        inward = self.body.forearms[0, :, 0] < -0.5
        return bool(inward.all() and (reach < 0.08).all() and (hands[:, 2] > 0.05).all() and (hands[:, 1] < 0.2).all())

    @cached_property
    def feet_gap(self) -> float:
        """Sideways distance of the ankles in leg lengths, negative if the legs cross."""
        gap = self.body.seen_from("pelvis", self._point("left_ankle")[None] - self._point("right_ankle")[None])
        return float(gap[0, 0] / self.body.leg_length[0])

    @cached_property
    def stride(self) -> float:
        """How far the left ankle is in front of the right one, in leg lengths."""
        gap = self.body.seen_from("pelvis", self._point("left_ankle")[None] - self._point("right_ankle")[None])
        return float(gap[0, 2] / self.body.leg_length[0])

    @cached_property
    def twist(self) -> float:
        """Rotation of the chest relative to the pelvis, degrees, positive to the person's left."""
        return _yaw(self.body.seen_from("pelvis", self.body.frame("spine3")[:, :, 2])[0])

    @cached_property
    def side_bend(self) -> float:
        """Sideways bend of the spine, degrees, positive to the person's left."""
        up = self.body.seen_from("pelvis", self.body.frame("spine3")[:, :, 1])[0]
        return float(np.degrees(np.arctan2(up[0], up[1])))

    @cached_property
    def head_turn(self) -> float:
        """Rotation of the head relative to the chest, degrees, positive to the person's left."""
        return _yaw(self.body.seen_from("spine3", self.body.frame("head")[:, :, 2])[0])

    @cached_property
    def head_pitch(self) -> float:
        """Pitch of the face relative to the chest, degrees, positive upwards."""
        front = self.body.seen_from("spine3", self.body.frame("head")[:, :, 2])[0]
        return float(np.degrees(np.arcsin(np.clip(front[1], -1, 1))))

    @cached_property
    def head_tilt(self) -> float:
        """Sideways tilt of the head, degrees, positive to the person's left."""
        up = self.body.seen_from("spine3", self.body.frame("head")[:, :, 1])[0]
        return float(np.degrees(np.arctan2(up[0], max(up[1], 1e-6))))

    def _point(self, joint: str) -> np.ndarray:
        return self.body.joint(joint)[0]

    def _touch(self, side: int) -> str | None:
        """Returns what the hand of a side (0 left, 1 right) touches: the closest place relative to its tolerance."""
        mine, other = SIDES[side], SIDES[1 - side]
        hand = self._point(f"{mine}_hand")
        head = self.body.seen_from("head", (hand - self._point("head"))[None])[0] - np.array([0, 0.09, 0.02])
        if np.linalg.norm(head) < 0.28:
            if head[2] < -0.06:
                return "behind the head"
            return "in front of the face" if head[2] > 0.1 and abs(head[0]) < 0.1 else "at the side of the head"
        if np.linalg.norm(head) < 0.44 and self.body.elbow_flexion[0, side] > 105 and head[2] > 0:
            return "near the chin"
        chest = self.body.seen_from("spine3", (hand - self._point("spine3"))[None])[0]
        outward = np.array([1.0, -1.0])[side]
        hip = self.body.seen_from("pelvis", (hand - self._point(f"{mine}_hip"))[None])[0]
        places = {
            "on the hip": np.linalg.norm(hip - np.array([0.1 * outward, 0.1, 0.0])) / 0.15,
            f"at the {other} shoulder": np.linalg.norm(hand - self._point(f"{other}_shoulder")) / 0.2,
            f"at the {other} elbow": np.linalg.norm(hand - self._point(f"{other}_elbow")) / 0.17,
            f"on the {mine} knee": np.linalg.norm(hand - self._point(f"{mine}_knee")) / 0.19,
            f"on the {other} knee": np.linalg.norm(hand - self._point(f"{other}_knee")) / 0.19,
            f"at the {mine} foot": np.linalg.norm(hand - self._point(f"{mine}_foot")) / 0.22,
            f"at the {other} foot": np.linalg.norm(hand - self._point(f"{other}_foot")) / 0.22,
            "at the chest": np.linalg.norm(chest - np.array([0.04 * outward, 0.0, 0.16])) / 0.17,
            "at the belly": np.linalg.norm(chest - np.array([0.04 * outward, -0.25, 0.16])) / 0.15,
            "behind the back": np.linalg.norm(chest - np.array([0.04 * outward, -0.25, -0.18])) / 0.16,
        }
        place = min(places, key=lambda name: places[name])
        if places[place] < 1:
            return place
        low = self.body.height(f"{mine}_hand")[0] < 0.12
        return "on the ground" if low and self.posture in ("sitting", "kneeling", "on all fours", "squatting") else None


def nearest(direction: np.ndarray, names: dict[str, tuple[float, float, float]]) -> str:
    """Returns the name whose direction has the smallest angle to `direction` (3,)."""
    axes = np.array(list(names.values()))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return list(names)[int(np.argmax(axes @ (direction / max(float(np.linalg.norm(direction)), 1e-9))))]


def bend_of(flexion: float) -> Bend:
    """Classifies the flexion of an elbow or knee, degrees from straight."""
    if flexion < 28:
        return "straight"
    if flexion < 60:
        return "slightly bent"
    return "bent" if flexion < 110 else "folded"


def _yaw(front: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(front[0], max(front[2], 1e-6))))
