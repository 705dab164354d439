"""Simple facts about a pose that questions may ask about and answers may rely on.

`predicates(rotations, rest_joints)` gives the posture (standing, sitting, …), what the hands and legs do and how the
torso leans. A fact that a careful viewer could dispute (a hand level with the head, knees half bent) is None: do not
ask about it. The facts depend only on geometry, so they hold for captions of any wording and for pictures alike.

    facts = predicates(rotations, rest_joints)      # AMASS frame without heading, SMPL rest joints
    facts.posture                                   # "sitting"
    facts.left_hand_above_head, facts.raised_arms   # True, "left" | "right" | "both" | "none" | None
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pose_rft.captions.geometry import SIDES, Body, degrees_between, pose_bodies

Posture = Literal[
    "standing",
    "bending",
    "lunging",
    "squatting",
    "kneeling",
    "sitting",
    "lying",
    "on all fours",
    "upside down",
    "other",
]
Lean = Literal["upright", "forward", "backward", "left", "right"]
Bearing = Literal["back", "belly", "left side", "right side"]
WhichArms = Literal["left", "right", "both", "none"]


@dataclass(frozen=True)
class Predicates:
    """Facts about one pose; None means too close to call (for `lying_on` also: not lying).

    raised_arms: hands clearly above the head. arms_to_the_side: upper arm and forearm point out sideways at about
    shoulder height. bent: clearly bent joint. lean: of the torso from the vertical. torso_tilt: degrees, 0 upright.
    """

    posture: Posture
    lying_on: Bearing | None
    on_one_leg: bool | None
    raised_arms: WhichArms | None
    left_hand_above_head: bool | None
    right_hand_above_head: bool | None
    left_arm_to_the_side: bool | None
    right_arm_to_the_side: bool | None
    left_elbow_bent: bool | None
    right_elbow_bent: bool | None
    left_knee_bent: bool | None
    right_knee_bent: bool | None
    hands_together: bool | None
    higher_hand: Literal["left", "right"] | None
    feet_apart: bool | None
    lean: Lean | None
    torso_tilt: float


def predicates(rotations: np.ndarray, rest_joints: np.ndarray) -> Predicates:
    """Facts of one pose.

    Args:
        rotations: (24, 3, 3) local rotations, root in the AMASS frame without heading.
        rest_joints: (24, 3) joints of the body model at rest, metres.
    """
    return all_predicates(pose_bodies(np.asarray(rotations)[None], rest_joints))[0]


def all_predicates(body: Body) -> list[Predicates]:
    """Facts of each pose of a batch."""
    kinds, bearings = postures(body), lying_bearings(body)
    # The head joint sits at the base of the skull, 0.2 m below the crown: "above the head" means above the crown.
    reach = (body.pair("hand") - body.joint("head")[:, None])[..., 2]
    above_head = _decide(reach, 0.05, 0.22)
    to_the_side = _all(_decide(_sideways(body.upper_arms), 0.70, 0.85), _decide(_sideways(body.forearms), 0.65, 0.8))
    elbow, knee = _decide(body.elbow_flexion, 30, 55), _decide(body.knee_flexion, 30, 55)
    hands = np.linalg.norm(body.joint("left_hand") - body.joint("right_hand"), axis=-1)
    hand_drop = (body.joint("left_hand") - body.joint("right_hand"))[:, 2]
    feet = np.linalg.norm(body.joint("left_ankle") - body.joint("right_ankle"), axis=-1) / body.leg_length
    foot_drop = np.abs(body.height("left_foot") - body.height("right_foot")) / body.leg_length
    leans = torso_leans(body)
    together, apart = _decide(-hands, -0.25, -0.14), _decide(feet, 0.32, 0.5)
    one_leg = _decide(foot_drop, 0.12, 0.25)
    facts = []
    for i, kind in enumerate(kinds):
        upright_kind = kind in ("standing", "bending", "lunging")
        facts.append(
            Predicates(
                posture=kind,
                lying_on=bearings[i] if kind == "lying" else None,
                on_one_leg=one_leg[i] if upright_kind else False,
                raised_arms=_which(above_head[i]) if kind not in ("lying", "upside down", "other") else None,
                left_hand_above_head=above_head[i][0],
                right_hand_above_head=above_head[i][1],
                left_arm_to_the_side=to_the_side[i][0],
                right_arm_to_the_side=to_the_side[i][1],
                left_elbow_bent=elbow[i][0],
                right_elbow_bent=elbow[i][1],
                left_knee_bent=knee[i][0],
                right_knee_bent=knee[i][1],
                hands_together=together[i],
                higher_hand=None if abs(hand_drop[i]) < 0.2 else SIDES[int(hand_drop[i] < 0)],  # type: ignore[arg-type]
                feet_apart=apart[i],
                lean=leans[i],
                torso_tilt=float(body.torso_tilt[i]),
            )
        )
    return facts


def postures(body: Body) -> list[Posture]:
    """The posture of each pose, from what supports the body: feet, knees, seat, hands or the whole trunk.

    Heights are measured from the lowest joint in leg lengths, since a pose alone has no ground and no chair.
    """
    leg = body.leg_length
    pelvis, chest = body.height("pelvis") / leg, body.height("spine3") / leg
    knees, feet = body.pair_height("knee") / leg[:, None], body.pair_height("ankle") / leg[:, None]
    hands = body.pair_height("wrist") / leg[:, None]
    tilt, facing_down = body.torso_tilt, -body.frame("spine3")[:, 2, 2]
    thigh_lift = degrees_between(
        body.pair("knee") - body.pair("hip"), -body.torso_up[:, None]
    )  # 0 in line with the torso
    thigh_drop = degrees_between(body.pair("knee") - body.pair("hip"), np.array([0.0, 0.0, -1.0]))  # 0 hanging down
    feet_ahead = body.seen_from("pelvis", body.pair("ankle") - body.joint("pelvis")[:, None])[..., 2] / leg[:, None]

    shins_flat = (np.abs(knees - feet) < 0.28) & (body.knee_flexion > 60)
    on_knee = shins_flat & (knees < 0.25) & (thigh_drop < 50)
    other_knee_or_foot = (on_knee | (np.minimum(knees, feet) < 0.3)).all(1)
    stride = np.abs(feet_ahead[:, 0] - feet_ahead[:, 1])
    level_feet = np.abs(feet[:, 0] - feet[:, 1]) < 0.3
    in_line = thigh_lift.mean(1) < 45
    supine, prone = (
        (tilt > 52) & (facing_down < -0.6),
        (tilt > 60) & (facing_down > 0.6) & in_line & (hands.min(1) < 0.4),
    )
    on_side = (tilt > 60) & (np.abs(body.frame("pelvis")[:, 2, 0]) > 0.7)
    rules: list[tuple[Posture, np.ndarray]] = [
        ("upside down", (tilt > 125) & (pelvis > chest)),
        (
            "on all fours",
            (tilt > 45) & (facing_down > 0.4) & shins_flat.any(1) & (knees.min(1) < 0.35) & (hands.min(1) < 0.45),
        ),
        ("lying", supine | prone | on_side | ((tilt > 52) & (pelvis < 0.38) & (chest < 0.5))),
        ("sitting", (pelvis < 0.3) & (tilt <= 60) & (thigh_drop.min(1) > 40)),
        ("kneeling", on_knee.any(1) & other_knee_or_foot & (pelvis > 0.28) & (pelvis < 0.72) & (tilt < 80)),
        ("sitting", (tilt <= 65) & (thigh_lift.min(1) > 35) & (thigh_drop.mean(1) > 55) & (feet_ahead.mean(1) > 0.33)),
        (
            "lunging",
            (stride > 0.6) & level_feet & (body.knee_flexion.max(1) > 40) & (tilt < 60) & (thigh_drop.max(1) > 30),
        ),
        (
            "squatting",
            (thigh_drop.min(1) > 25) & (body.knee_flexion.min(1) > 40) & level_feet & (pelvis < 0.95) & (tilt < 85),
        ),
        ("bending", (tilt > 40) & (facing_down > 0.4) & (pelvis > 0.6) & (thigh_drop.min(1) < 50)),
        ("standing", (thigh_drop.min(1) < 60) & (tilt < 60) & (pelvis > 0.55)),
    ]
    named = np.full(len(body), "other", dtype=object)
    for kind, holds in reversed(rules):
        named[holds] = kind
    return list(named)


def lying_bearings(body: Body) -> list[Bearing]:
    """The side of the trunk that faces the ground, for lying poses."""
    facing_up = (
        body.frame("pelvis")[:, 2, :] + body.frame("spine3")[:, 2, :]
    )  # height of (left, up, front) of the trunk
    left, front = facing_up[:, 0], facing_up[:, 2]
    on_side = np.abs(left) > np.abs(front)
    sides = np.where(left > 0, "right side", "left side")
    return np.where(on_side, sides, np.where(front > 0, "back", "belly")).tolist()


def torso_leans(body: Body) -> list[Lean | None]:
    """Direction in which the torso leans from the vertical; None from 9 to 18 degrees and if lying or diagonal."""
    x, y = body.torso_up[:, 0], body.torso_up[:, 1]
    leans: list[Lean | None] = []
    for i, tilt in enumerate(body.torso_tilt):
        along, across = abs(y[i]), abs(x[i])
        if tilt < 9:
            leans.append("upright")
        elif tilt < 18 or tilt > 80 or max(along, across) < 2 * min(along, across):
            leans.append(None)
        elif along > across:
            leans.append("forward" if y[i] < 0 else "backward")
        else:
            leans.append("left" if x[i] > 0 else "right")
    return leans


def _sideways(arms: np.ndarray) -> np.ndarray:
    return arms[..., 0]


def _decide(values: np.ndarray, no: float, yes: float) -> np.ndarray:
    """False up to `no`, True from `yes`, None between (object array of the same shape)."""
    decided = np.full(values.shape, None, dtype=object)
    decided[values >= yes], decided[values <= no] = True, False
    return decided


def _all(*facts: np.ndarray) -> np.ndarray:
    """Three-valued AND: False if any is False, else None if any is None."""
    stacked = np.stack(facts)
    outcome = np.full(stacked.shape[1:], True, dtype=object)
    for verdict in (None, False):  # a False outweighs a None
        outcome[np.vectorize(lambda fact, verdict=verdict: fact is verdict, otypes=[bool])(stacked).any(0)] = verdict
    return outcome


def _which(above: np.ndarray) -> WhichArms | None:
    left, right = above
    if left is None or right is None:
        return None
    return {(True, True): "both", (True, False): "left", (False, True): "right", (False, False): "none"}[left, right]  # type: ignore[return-value]
