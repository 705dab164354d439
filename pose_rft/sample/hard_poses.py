"""Poses on which pose estimators fail: on the ground, upside down, during sports. For training and the test set `hard`.

Key poses in the notation of `key_poses`, by group. They are kept apart from `KEY_POSES`, from which the test sets and
the captioned poses are drawn and to which the body model's regressor is fitted, so that those do not change.
"""

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.sample.key_poses import (
    APART,
    HANGING,
    ON_CHAIR,
    ON_HIP,
    PROPPED,
    STRAIGHT,
    Arm,
    KeyPose,
    Leg,
    PoseSampler,
    key_pose,
)

OVERHEAD: Arm = ((0.25, 1, 0.05), (0.1, 1, 0.05))
OUT: Arm = ((1, 0.05, 0.05), (1, 0.05, 0.1))
BEHIND_HEAD: Arm = ((0.95, 0.5, 0.1), (-0.75, 0.62, -0.2))
AHEAD: Arm = ((0.15, 0.0, 1), (0.08, 0.0, 1))
BESIDE: Arm = ((0.3, -1, 0.0), (0.2, -1, 0.15))
HUGGING: Arm = ((0.3, -0.5, 0.85), (-0.45, -0.3, 0.9))
TUCKED: Leg = ((0.15, 0.45, 0.9), (0.08, -1, 0.1))
KNEES_UP: Leg = ((0.15, -0.55, 0.85), (0.1, -0.65, -0.8))
CROUCHED: Leg = ((0.25, -0.45, 0.9), (0.1, -1, -0.45))
BACK_LEG: Leg = ((0.1, -1, -0.5), (0.08, -0.7, -0.85))

ON_THE_GROUND: Mapping[str, KeyPose] = {
    "back": key_pose(arms=BESIDE, root=(-90, 0)),
    "back, arms overhead": key_pose(arms=OVERHEAD, legs=APART, root=(-90, 0)),
    "back, starfish": key_pose(arms=OUT, legs=((0.6, -1, 0), (0.55, -1, -0.05)), root=(-90, 0), head=(0, 35)),
    "back, one knee up": key_pose(arms=BEHIND_HEAD, left_leg=KNEES_UP, root=(-88, 0)),
    "back, legs crossed": key_pose(
        arms=((0.3, -0.9, 0.3), (-0.6, -0.2, 0.7)),
        left_leg=((0.1, -0.5, 0.9), (0.1, -0.7, -0.75)),
        right_leg=((-0.1, -0.1, 1), (-0.5, -0.5, 0.5)),
        root=(-86, 0),
    ),
    "back, legs raised": key_pose(arms=BESIDE, legs=((0.08, 0.0, 1), (0.05, 0.1, 1)), root=(-90, 0)),
    "dead bug": key_pose(arms=AHEAD, legs=((0.12, 0.1, 1), (0.08, -1, 0.1)), root=(-90, 0)),
    "sit-up": key_pose(arms=BEHIND_HEAD, legs=KNEES_UP, spine=(35, 0, 0), root=(-72, 0)),
    "crunch": key_pose(
        arms=BEHIND_HEAD,
        left_leg=TUCKED,
        right_leg=((0.1, -0.75, 0.5), (0.08, -0.85, 0.5)),
        spine=(40, 0, 25),
        root=(-75, 0),
    ),
    "reclining": key_pose(arms=PROPPED, legs=((0.15, -0.6, 0.8), (0.1, -0.6, 0.6)), root=(-48, 0)),
    "hip bridge": key_pose(arms=BESIDE, legs=((0.15, -1, 0.15), (0.1, -0.35, -1)), root=(-112, 0), head=(35, 0)),
    "wheel": key_pose(
        arms=((0.3, 1, -0.3), (0.2, 0.8, -0.7)),
        legs=((0.25, -1, -0.35), (0.2, -0.6, -1)),
        spine=(-75, 0, 0),
        root=(-85, 0),
        head=(-35, 0),
    ),
    "crab": key_pose(
        arms=((0.3, -0.5, -0.9), (0.2, -0.6, -0.9)), legs=((0.2, -0.75, 0.7), (0.1, -0.5, -1)), root=(-75, 0)
    ),
    "side": key_pose(
        left_arm=((0.3, -0.6, 0.8), (-0.2, -0.3, 0.9)),
        right_arm=((0.6, 0.7, 0.5), (-0.5, 0.8, 0.1)),
        left_leg=((0.0, -0.7, 0.7), (-0.1, -0.9, -0.4)),
        root=(0, 86),
    ),
    "curled": key_pose(
        arms=((0.2, -0.6, 0.8), (-0.2, 0.7, 0.6)),
        legs=((0.1, 0.15, 1), (0.05, -0.9, -0.4)),
        spine=(45, 0, 0),
        head=(25, 0),
        root=(0, 86),
    ),
    "side, propped": key_pose(
        left_arm=((0.15, -1, 0.3), (-0.1, -0.9, 0.4)),
        right_arm=((0.7, 0.1, 0.5), (-0.1, 1, 0.2)),
        left_leg=((0.1, -0.8, 0.6), (0.05, -0.7, -0.7)),
        spine=(0, -30, 0),
        root=(0, 76),
    ),
    "side plank": key_pose(left_arm=OUT, right_arm=((1, 0.1, 0.1), (1, 0.1, 0.1)), root=(0, 64)),
    "front": key_pose(arms=((0.9, 0.4, 0.1), (-0.2, 1, 0.1)), legs=APART, root=(90, 0), head=(-5, 60)),
    "front, arms back": key_pose(arms=((0.3, -1, -0.15), (0.2, -1, -0.1)), root=(90, 0), head=(-5, -55)),
    "front, crawling soldier": key_pose(
        left_arm=((0.5, 0.8, 0.4), (0.0, 1, 0.1)),
        right_arm=((0.7, -0.2, 0.5), (-0.1, 0.9, 0.2)),
        left_leg=((0.9, -0.3, 0.2), (0.2, -1, 0.0)),
        root=(86, 0),
        head=(-30, 0),
    ),
    "superman": key_pose(arms=OVERHEAD, legs=((0.15, -1, -0.2), (0.12, -1, -0.3)), spine=(-25, 0, 0), root=(88, 0)),
    "front, reading": key_pose(
        arms=((0.25, 0.1, 1), (-0.1, 0.9, 0.4)),
        legs=((0.12, -1, 0.0), (0.08, -0.3, -1)),
        spine=(-35, 0, 0),
        root=(84, 0),
        head=(-15, 0),
    ),
    "cobra": key_pose(arms=((0.25, -0.55, 0.9), (0.1, -0.6, 0.9)), spine=(-65, 0, 0), root=(84, 0), head=(-25, 0)),
    "plank": key_pose(arms=((0.2, -0.05, 1), (0.05, 0.9, 0.35)), root=(82, 0), head=(-15, 0)),
    "push-up, low": key_pose(arms=((0.65, -0.75, -0.1), (0.1, -0.1, 1)), root=(84, 0), head=(-20, 0)),
    "mountain climber": key_pose(arms=AHEAD, left_leg=TUCKED, root=(74, 0), head=(-20, 0)),
    "crawl": key_pose(
        left_arm=((0.15, 0.5, 1), (0.1, 0.3, 1)),
        right_arm=((0.15, -0.4, 1), (0.1, -0.3, 1)),
        left_leg=((0.12, -0.5, 0.9), (0.1, -0.9, -0.5)),
        right_leg=((0.12, 0.2, 1), (0.1, -1, 0.0)),
        root=(82, 0),
        head=(-40, 0),
    ),
    "bear crawl": key_pose(arms=AHEAD, legs=((0.2, -0.3, 1), (0.12, -0.9, 0.35)), root=(92, 0), head=(-25, 0)),
    "child's pose": key_pose(
        arms=OVERHEAD, legs=((0.25, 0.25, 1), (0.05, -0.95, -0.4)), spine=(45, 0, 0), root=(62, 0), head=(15, 0)
    ),
    "bird dog": key_pose(
        left_arm=((0.1, 1, 0.15), (0.05, 1, 0.1)),
        right_arm=AHEAD,
        left_leg=((0.12, 0.0, 1), (0.1, -1, 0.0)),
        right_leg=((0.08, -1, -0.1), (0.05, -1, -0.1)),
        root=(88, 0),
        head=(-15, 0),
    ),
    "forward fold, sitting": key_pose(
        arms=((0.2, 0.6, 0.9), (0.1, 0.6, 0.9)),
        legs=((0.12, -0.05, 1), (0.08, -0.1, 1)),
        spine=(60, 0, 0),
        root=(10, 0),
    ),
    "straddle": key_pose(
        arms=((0.4, -0.6, 0.8), (0.2, -0.6, 0.8)), legs=((0.85, -0.05, 0.6), (0.8, -0.08, 0.6)), spine=(20, 0, 0)
    ),
    "boat": key_pose(
        arms=((0.2, -0.3, 1), (0.1, -0.1, 1)), legs=((0.1, 0.25, 1), (0.08, 0.25, 1)), spine=(10, 0, 0), root=(-42, 0)
    ),
}
UPSIDE_DOWN: Mapping[str, KeyPose] = {
    "handstand": key_pose(arms=OVERHEAD, root=(178, 0), head=(-20, 0)),
    "handstand, split": key_pose(
        arms=OVERHEAD, left_leg=((0.1, -0.6, 0.8), (0.08, -0.6, 0.8)), right_leg=BACK_LEG, root=(172, 0), head=(-25, 0)
    ),
    "handstand, straddle": key_pose(arms=OVERHEAD, legs=((1, -0.5, 0.2), (1, -0.5, 0.15)), root=(176, 0)),
    "handstand, tuck": key_pose(arms=OVERHEAD, legs=TUCKED, root=(165, 0), head=(-20, 0)),
    "headstand": key_pose(arms=((0.5, 0.7, 0.7), (-0.25, 0.95, -0.15)), root=(180, 0)),
    "cartwheel": key_pose(
        arms=((0.6, 0.9, 0.0), (0.5, 1, 0.05)), legs=((0.85, -0.8, 0), (0.8, -0.85, -0.05)), root=(0, 172)
    ),
    "cartwheel, half": key_pose(
        left_arm=((0.7, 0.9, 0), (0.6, 1, 0)),
        right_arm=((0.5, 1, 0), (0.4, 1, 0.05)),
        legs=((0.7, -0.8, 0), (0.7, -0.85, -0.05)),
        spine=(0, 20, 0),
        root=(0, 115),
    ),
    "shoulder stand": key_pose(arms=ON_HIP, spine=(35, 0, 0), head=(60, 0), root=(-160, 0)),
    "plough": key_pose(
        arms=BESIDE, legs=((0.1, 0.35, 1), (0.08, 0.4, 1)), spine=(55, 0, 0), head=(55, 0), root=(-150, 0)
    ),
    "dive": key_pose(arms=OVERHEAD, root=(148, 0), head=(10, 0)),
    "dive, shallow": key_pose(arms=OVERHEAD, legs=((0.06, -1, -0.15), (0.04, -1, -0.25)), root=(112, 0), head=(-15, 0)),
    "dive, pike": key_pose(
        arms=((0.15, 0.3, 1), (0.1, 0.3, 1)), legs=((0.06, 0.3, 1), (0.04, 0.3, 1)), spine=(50, 0, 0), root=(120, 0)
    ),
    "somersault": key_pose(arms=HUGGING, legs=TUCKED, spine=(50, 0, 0), head=(35, 0), root=(160, 0)),
    "backflip": key_pose(
        arms=((0.35, 0.8, -0.3), (0.2, 0.9, -0.3)), legs=((0.15, -1, -0.35), (0.1, -0.8, -0.6)), spine=(-40, 0, 0),
        root=(-145, 0), head=(-30, 0),
    ),
    "roll": key_pose(
        arms=HUGGING, legs=((0.2, 0.6, 0.9), (0.1, -0.9, 0.5)), spine=(60, 0, 0), head=(40, 0),
        root=(100, 0),
    ),
    "downward dog": key_pose(arms=OVERHEAD, legs=((0.12, -0.25, 1), (0.1, -0.35, 0.95)), root=(132, 0), head=(5, 0)),
    "three-legged dog": key_pose(
        arms=OVERHEAD, left_leg=((0.1, -1, 0.0), (0.08, -1, -0.05)), right_leg=((0.12, -0.25, 1), (0.1, -0.35, 0.95)),
        root=(132, 0),
    ),
    "hanging by the knees": key_pose(arms=OVERHEAD, legs=((0.12, -0.7, 0.8), (0.08, -0.7, -0.8)), root=(180, 0)),
    "deep bend": key_pose(
        arms=((0.2, 0.3, 1), (0.1, 0.2, 1)), legs=((0.1, -0.35, 1), (0.05, -0.4, 0.95)), spine=(60, 0, 0), root=(80, 0),
        head=(20, 0),
    ),
    "crow": key_pose(
        arms=((0.3, -0.1, 1), (0.1, 0.1, 1)), legs=((0.6, 0.35, 0.9), (-0.1, -1, -0.25)), spine=(30, 0, 0),
        root=(78, 0), head=(-25, 0),
    ),
}  # fmt: skip
IN_MOTION: Mapping[str, KeyPose] = {
    "skiing": key_pose(
        arms=((0.4, -0.6, 0.75), (0.05, 0.1, 1)), legs=((0.16, -0.6, 0.8), (0.1, -1, -0.45)), spine=(30, 0, 0),
        root=(8, 0), head=(-18, 0),
    ),
    "skiing, tuck": key_pose(
        arms=((0.3, -0.5, 0.9), (-0.25, 0.4, 0.9)), legs=((0.16, -0.2, 1), (0.1, -1, -0.5)), spine=(50, 0, 0),
        root=(22, 0), head=(-35, 0),
    ),
    "skiing, turn": key_pose(
        left_arm=((0.7, -0.5, 0.5), (0.2, 0.0, 1)), right_arm=((0.5, -0.8, 0.5), (0.1, -0.1, 1)),
        left_leg=((0.25, -0.5, 0.8), (0.3, -1, -0.4)), right_leg=((-0.15, -0.9, 0.5), (-0.3, -1, -0.3)),
        spine=(25, -20, 10), root=(8, 26),
    ),
    "snowboarding": key_pose(
        arms=((0.9, -0.15, 0.2), (0.8, 0.0, 0.5)), legs=((0.5, -0.6, 0.7), (0.15, -1, -0.4)), spine=(25, 10, 25),
        root=(6, 12), head=(0, 50),
    ),
    "batting": key_pose(
        left_arm=((-0.3, -0.35, 0.9), (-0.75, 0.55, 0.0)), right_arm=((0.75, -0.5, 0.1), (-0.15, 0.8, 0.5)),
        legs=((0.35, -0.9, 0.4), (0.25, -1, -0.25)), spine=(15, 0, -35), head=(0, 60),
    ),
    "batting, swing": key_pose(
        left_arm=((0.6, -0.1, 0.7), (0.6, 0.15, 0.8)), right_arm=((-0.25, -0.2, 0.9), (-0.55, 0.2, 0.8)),
        left_leg=((0.35, -1, 0.2), (0.3, -1, 0.15)), right_leg=((0.3, -0.9, -0.2), (0.05, -0.8, -0.7)),
        spine=(10, 0, 45), head=(0, -30),
    ),
    "catching": key_pose(
        left_arm=((0.3, -0.3, 0.9), (0.0, 0.3, 1)), right_arm=((0.4, -0.9, -0.1), (-0.2, -0.6, 0.5)),
        legs=((0.6, 0.0, 0.85), (0.15, -1, -0.5)), spine=(28, 0, 0), root=(14, 0), head=(-25, 0),
    ),
    "pitching, wind-up": key_pose(
        arms=((0.25, -0.5, 0.8), (-0.4, 0.6, 0.6)), left_leg=((0.1, 0.35, 1), (-0.1, -1, 0.1)), spine=(-5, 0, -25),
        root=(-5, 0), head=(0, 40),
    ),
    "pitching, release": key_pose(
        left_arm=((0.4, -0.7, -0.3), (-0.3, -0.2, 0.9)), right_arm=((0.5, 0.8, 0.6), (0.2, 0.7, 0.8)),
        left_leg=((0.1, -0.5, 1), (0.05, -1, -0.1)), right_leg=((0.15, -0.8, -0.7), (0.1, -0.3, -1)),
        spine=(30, 15, 20), root=(15, 0),
    ),
    "javelin": key_pose(
        left_arm=((0.6, 0.3, 0.8), (0.4, 0.4, 0.9)), right_arm=((0.7, 0.2, -0.7), (0.3, 0.4, -0.8)),
        left_leg=((0.1, -0.7, 0.8), (0.05, -1, 0.3)), right_leg=((0.1, -0.9, -0.4), (0.05, -0.8, -0.7)),
        spine=(-15, 0, -25), root=(-10, 0),
    ),
    "tennis, serve": key_pose(
        left_arm=((0.2, 1, 0.5), (0.1, 1, 0.4)), right_arm=((0.8, 0.5, -0.3), (0.0, 0.7, -0.6)),
        left_leg=((0.1, -1, 0.3), (0.08, -1, -0.1)), right_leg=((0.1, -1, -0.1), (0.05, -0.8, -0.6)),
        spine=(-25, 10, -10), head=(-30, 0),
    ),
    "tennis, forehand": key_pose(
        left_arm=((0.5, -0.2, 0.7), (-0.3, 0.1, 0.8)), right_arm=((0.9, -0.3, -0.3), (0.9, -0.1, 0.1)),
        left_leg=((0.3, -0.8, 0.6), (0.15, -1, -0.2)), right_leg=((0.5, -0.9, 0.0), (0.3, -0.9, -0.5)),
        spine=(18, 0, -35), root=(5, 0), head=(0, 30),
    ),
    "tennis, backhand": key_pose(
        left_arm=((-0.4, -0.4, 0.8), (-0.8, -0.1, 0.4)), right_arm=((-0.2, -0.5, 0.8), (-0.7, -0.2, 0.5)),
        left_leg=((0.3, -0.8, 0.5), (0.15, -1, -0.3)), right_leg=((0.4, -0.8, 0.5), (0.2, -1, -0.4)),
        spine=(20, 0, 40), head=(0, -40),
    ),
    "volleyball, dig": key_pose(
        arms=((0.05, -0.55, 0.9), (-0.1, -0.35, 1)), legs=CROUCHED, spine=(30, 0, 0), root=(14, 0), head=(-25, 0)
    ),
    "spike": key_pose(
        left_arm=((0.4, 0.2, 0.9), (0.2, 0.4, 0.9)), right_arm=((0.6, 0.9, -0.3), (-0.1, 0.8, -0.6)),
        legs=((0.15, -1, -0.2), (0.1, -0.4, -1)), spine=(-20, 0, -15), root=(-5, 0),
    ),
    "shot at the basket": key_pose(
        left_arm=((0.3, 0.8, 0.6), (-0.1, 1, 0.2)), right_arm=((0.25, 0.8, 0.7), (0.0, 1, 0.4)), spine=(-5, 0, 0),
        head=(-20, 0), root=(-3, 0),
    ),
    "layup": key_pose(
        left_arm=((0.2, 1, 0.4), (0.1, 1, 0.3)), right_arm=((0.4, -0.7, 0.4), (0.0, -0.2, 1)),
        left_leg=((0.1, 0.1, 1), (0.05, -1, -0.2)), right_leg=((0.1, -1, -0.25), (0.05, -1, -0.3)), head=(-25, 0),
    ),
    "football, before the kick": key_pose(
        left_arm=((0.9, 0.2, 0.3), (0.8, 0.3, 0.5)), right_arm=((0.7, -0.5, -0.5), (0.5, -0.6, -0.3)),
        left_leg=((0.15, -1, 0.25), (0.2, -1, -0.1)), right_leg=((0.3, -0.8, -0.7), (0.1, -0.2, -1)),
        spine=(5, 10, -15), root=(-8, 8),
    ),
    "football, kick": key_pose(
        left_arm=((0.8, -0.3, 0.6), (0.4, -0.2, 0.9)), right_arm=((0.8, -0.2, -0.6), (0.7, -0.2, -0.5)),
        left_leg=((0.1, -1, 0.1), (0.08, -1, -0.2)), right_leg=((-0.1, -0.1, 1), (-0.15, 0.05, 1)),
        spine=(15, 0, 25), root=(-15, 8),
    ),
    "goalkeeper": key_pose(
        arms=((0.5, 1, 0.3), (0.3, 1, 0.3)), left_leg=((0.2, -1, 0.1), (0.15, -1, -0.3)),
        right_leg=((0.1, -0.5, 0.8), (0.1, -0.8, -0.6)), spine=(0, 20, 0), root=(5, 62),
    ),
    "jump, star": key_pose(arms=((0.75, 0.7, 0.1), (0.7, 0.8, 0.1)), legs=((0.7, -0.8, 0.1), (0.65, -0.9, -0.15))),
    "jump, tucked": key_pose(arms=HUGGING, legs=((0.15, 0.25, 1), (0.1, -1, -0.3)), spine=(20, 0, 0)),
    "jump, heels up": key_pose(
        arms=((0.6, 0.9, 0.1), (0.4, 1, 0.2)), legs=((0.15, -1, -0.1), (0.1, -0.2, -1)), spine=(-15, 0, 0),
        root=(5, 0), head=(-15, 0),
    ),
    "long jump": key_pose(
        arms=((0.3, 0.5, 0.9), (0.2, 0.3, 1)), legs=((0.12, -0.1, 1), (0.1, -0.4, 0.9)), spine=(35, 0, 0), root=(15, 0)
    ),
    "leap": key_pose(
        left_arm=((0.7, 0.5, 0.5), (0.5, 0.6, 0.6)), right_arm=((0.9, 0.1, -0.3), (0.9, 0.2, -0.2)),
        left_leg=((0.15, -0.15, 1), (0.1, -0.15, 1)), right_leg=((0.15, -0.4, -1), (0.1, -0.2, -1)), spine=(-5, 0, 0),
    ),
    "hurdle": key_pose(
        left_arm=((0.2, 0.1, 1), (0.0, 0.2, 1)), right_arm=((0.5, -0.7, -0.6), (0.1, -0.6, 0.7)),
        left_leg=((0.1, 0.05, 1), (0.1, -0.1, 1)), right_leg=((1, -0.2, 0.1), (-0.2, -0.3, -1)), spine=(35, 0, 0),
        root=(15, 0), head=(-25, 0),
    ),
    "sprint": key_pose(
        left_arm=((0.25, -0.6, -0.9), (0.05, -0.7, 0.7)), right_arm=((0.25, -0.5, 0.8), (-0.1, 0.8, 0.7)),
        left_leg=((0.08, -0.15, 1), (0.05, -1, -0.35)), right_leg=((0.08, -1, -0.6), (0.05, -0.7, -0.9)),
        spine=(12, 0, 18), root=(18, 0),
    ),
    "sprint, start": key_pose(
        arms=((0.15, -0.1, 1), (0.1, -0.1, 1)), left_leg=((0.12, 0.1, 1), (0.1, -1, -0.1)),
        right_leg=((0.12, -0.6, 0.7), (0.1, -1, -0.3)), spine=(20, 0, 0), root=(78, 0), head=(-10, 0),
    ),
    "cycling": key_pose(
        arms=((0.25, -0.3, 1), (0.1, -0.2, 1)), left_leg=((0.12, -0.15, 1), (0.08, -1, -0.35)),
        right_leg=((0.12, -0.8, 0.6), (0.08, -1, 0.0)), spine=(40, 0, 0), root=(22, 0), head=(-40, 0),
    ),
    "riding": key_pose(
        arms=((0.3, -0.8, 0.5), (-0.05, -0.1, 1)), legs=((0.7, -0.35, 0.7), (0.25, -1, -0.35)), spine=(8, 0, 0)
    ),
    "surfing": key_pose(
        left_arm=((0.9, 0.1, 0.3), (0.9, 0.2, 0.4)), right_arm=((0.8, 0.1, -0.2), (0.6, 0.5, 0.3)),
        left_leg=((0.5, -0.4, 0.8), (0.1, -1, -0.4)), right_leg=((0.5, -0.7, 0.1), (0.0, -0.8, -0.7)),
        spine=(25, 0, 25), root=(10, -10), head=(-10, 45),
    ),
    "golf, top": key_pose(
        left_arm=((-0.5, 0.4, 0.8), (-0.8, 0.7, 0.2)), right_arm=((0.6, 0.1, 0.3), (-0.1, 0.9, -0.2)), legs=APART,
        spine=(18, 0, -50), root=(10, 0), head=(15, 45),
    ),
    "golf, finish": key_pose(
        left_arm=((0.7, 0.4, 0.3), (-0.1, 0.8, -0.5)), right_arm=((-0.2, 0.3, 0.9), (-0.2, 0.9, 0.2)),
        right_leg=((0.1, -1, -0.1), (0.0, -0.7, -0.7)), spine=(-10, 0, 55),
    ),
    "bowling": key_pose(
        left_arm=((0.9, -0.3, 0.1), (0.8, -0.2, 0.3)), right_arm=((0.15, -0.5, 0.9), (0.1, -0.2, 1)),
        left_leg=((0.15, -0.5, 0.9), (0.1, -1, -0.4)), right_leg=((-0.3, -0.9, -0.5), (-0.4, -0.5, -0.9)),
        spine=(40, 0, 10), root=(20, 0), head=(-35, 0),
    ),
    "archery": key_pose(
        left_arm=OUT, right_arm=((0.95, 0.1, 0.2), (-1, 0.15, 0.25)), legs=APART, head=(0, 75)
    ),
    "jab": key_pose(
        left_arm=((0.1, 0.05, 1), (0.0, 0.05, 1)), right_arm=((0.3, -0.8, 0.5), (-0.2, 1, 0.4)),
        left_leg=((0.15, -0.8, 0.5), (0.1, -1, -0.2)), right_leg=((0.2, -0.9, -0.4), (0.1, -0.9, -0.6)),
        spine=(12, 0, -30), root=(8, 0),
    ),
    "high kick": key_pose(
        left_arm=((0.5, -0.8, 0.3), (0.1, -0.2, 0.9)), right_arm=((0.7, -0.5, -0.3), (0.5, -0.4, 0.5)),
        left_leg=((0.25, 0.75, 0.8), (0.2, 0.75, 0.8)), spine=(-5, 0, 0), root=(-15, 0),
    ),
    "roundhouse": key_pose(
        arms=((0.4, -0.6, 0.6), (-0.2, 0.8, 0.5)), left_leg=((1, 0.2, 0.35), (0.9, 0.35, 0.6)), spine=(0, 15, 20),
        root=(0, 38),
    ),
    "climbing": key_pose(
        left_arm=((0.4, 1, 0.3), (0.1, 1, 0.35)), right_arm=((0.8, 0.2, 0.5), (0.0, 1, 0.4)),
        left_leg=((0.7, -0.1, 0.7), (-0.1, -1, 0.0)), right_leg=((0.4, -1, 0.1), (0.2, -1, -0.1)), head=(-30, 0),
    ),
    "hanging": key_pose(arms=OVERHEAD, legs=((0.1, -1, 0.15), (0.06, -0.8, -0.6)), head=(-10, 0)),
    "tree": key_pose(
        arms=((0.4, 1, 0.1), (-0.25, 1, 0.1)), left_leg=((0.8, -0.5, 0.3), (-0.75, -0.65, -0.25))
    ),
    "warrior, one": key_pose(
        arms=OVERHEAD, left_leg=((0.1, -0.35, 1), (0.05, -1, 0.05)), right_leg=((0.12, -0.8, -0.8), (0.1, -0.75, -0.85))
    ),
    "warrior, two": key_pose(
        arms=OUT, left_leg=((0.95, -0.5, 0.25), (0.1, -1, 0.0)), right_leg=((0.8, -1, 0), (0.8, -1, 0)), head=(0, 80)
    ),
    "warrior, three": key_pose(
        arms=OVERHEAD, left_leg=((0.06, -1, 0.0), (0.04, -1, -0.05)), right_leg=((0.06, -0.15, 1), (0.04, -0.2, 1)),
        root=(84, 0), head=(-20, 0),
    ),
    "triangle": key_pose(
        arms=OUT, legs=((0.6, -1, 0), (0.6, -1, 0)), spine=(0, 60, 0), root=(0, 15), head=(0, -30)
    ),
    "dancer": key_pose(
        left_arm=((0.2, 0.5, 0.9), (0.1, 0.5, 0.9)), right_arm=((0.3, -0.2, -1), (0.1, 0.3, -1)),
        right_leg=((0.2, -0.4, -0.9), (0.05, 0.9, -0.5)), spine=(-15, 0, 0), root=(30, 0), head=(-20, 0),
    ),
    "chair": key_pose(
        arms=((0.25, 0.8, 0.7), (0.15, 0.9, 0.5)), legs=((0.12, -0.3, 1), (0.08, -1, -0.4)), spine=(20, 0, 0),
        root=(16, 0),
    ),
    "picking up": key_pose(
        left_arm=((0.15, -0.3, 1), (0.1, -0.3, 1)), right_arm=((0.3, -0.9, 0.3), (-0.1, -0.5, 0.8)),
        left_leg=((0.15, -0.3, 1), (0.1, -1, -0.35)), right_leg=((0.15, -0.8, 0.4), (0.1, -0.7, -0.8)),
        spine=(50, 0, 0), root=(30, 0),
    ),
    "tying a shoe": key_pose(
        arms=((0.2, -0.4, 1), (-0.15, -0.7, 0.8)), left_leg=((0.12, 0.1, 1), (0.1, -1, 0.0)),
        right_leg=((0.12, -1, 0.2), (0.1, -0.15, -1)), spine=(50, 0, 0), root=(20, 0), head=(15, 0),
    ),
    "sitting, slumped": key_pose(
        arms=((0.4, -0.8, 0.5), (-0.1, -0.6, 0.8)), legs=((0.35, 0.0, 1), (0.15, -1, 0.15)), spine=(35, 10, 0),
        head=(30, 0), root=(-20, 0),
    ),
    "sitting, arms behind head": key_pose(arms=BEHIND_HEAD, legs=ON_CHAIR, root=(-15, 0)),
    "pushing": key_pose(
        arms=((0.3, 0.1, 1), (0.15, 0.2, 1)), left_leg=((0.1, -0.5, 0.9), (0.08, -1, -0.4)), right_leg=BACK_LEG,
        spine=(15, 0, 0), root=(32, 0),
    ),
    "pulling": key_pose(
        arms=AHEAD, legs=((0.25, -0.6, 0.8), (0.2, -1, 0.35)), spine=(10, 0, 0), root=(-28, 0)
    ),
    "carrying overhead": key_pose(arms=((0.55, 0.8, 0.2), (0.05, 1, 0.1)), legs=APART),
    "falling": key_pose(
        left_arm=((0.9, 0.4, 0.4), (0.6, 0.7, 0.5)), right_arm=((0.8, 0.3, -0.5), (0.7, 0.6, 0.2)),
        left_leg=((0.3, -0.4, 0.8), (0.15, -0.9, 0.4)), right_leg=((0.3, -0.9, 0.2), (0.2, -0.9, -0.5)),
        spine=(15, 0, 0), root=(-45, 15),
    ),
    "stretching": key_pose(arms=HANGING, left_leg=((0.06, -1, 0.0), (0.05, -0.1, -1)), right_leg=STRAIGHT),
}  # fmt: skip
GROUPS: Mapping[str, Mapping[str, KeyPose]] = {
    "on the ground": ON_THE_GROUND,
    "upside down": UPSIDE_DOWN,
    "in motion": IN_MOTION,
}
SAMPLERS: Mapping[str, PoseSampler] = {
    name: PoseSampler(tuple(keys.values()), heading=180.0, tilt=7.0, noise=0.9, swap_arms=0.2, blend=0.6, own_root=0.85)
    for name, keys in GROUPS.items()
}


def tumbled(rotations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the pose (24, 3, 3) in a random orientation, as of a body in mid-air."""
    turned = rotations.copy()
    turned[0] = Rotation.from_quat(rng.normal(size=4)).as_matrix() @ rotations[0]
    return turned
