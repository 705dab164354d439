"""Poses of the embedded sample: named key poses, and a sampler that mixes, blends and perturbs them.

A key pose says where the limbs point, as directions (outward, up, front) that mean the same for the left and the right
side. Elbows and knees bend about their hinge axis; the upper limb twists to allow it. Everything is in SMPL's
body frame (y up, z front, x to the person's left); a person with identity root faces +z. No camera here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import SMPL24

Direction = tuple[float, float, float]
Arm = tuple[Direction, Direction]  # upper arm, forearm; in the chest frame
Leg = tuple[Direction, Direction]  # thigh, shank; in the pelvis frame

# Arms and legs that several poses share.
HANGING: Arm = ((0.2, -1, 0.05), (0.1, -1, 0.25))
STRAIGHT: Leg = ((0.08, -1, 0.02), (0.03, -1, -0.07))
APART: Leg = ((0.3, -1, 0), (0.26, -1, -0.08))
ON_CHAIR: Leg = ((0.2, -0.12, 1), (0.1, -1, 0.05))
ON_KNEE: Leg = ((0.12, -1, 0.1), (0.08, -0.08, -1))
ON_LAP: Arm = ((0.22, -1, 0.25), (0.05, -0.5, 0.9))
PROPPED: Arm = ((0.4, -0.9, -0.55), (0.2, -1, -0.1))
ON_HIP: Arm = ((0.75, -0.8, -0.3), (-0.75, -0.55, 0.4))


@dataclass(frozen=True)
class KeyPose:
    """Angles in degrees: spine (bent forward, bent to the left, twisted to the left), head (down, turned to the left),
    root (tilted forward, tilted to the left)."""

    left_arm: Arm
    right_arm: Arm
    left_leg: Leg
    right_leg: Leg
    spine: tuple[float, float, float]
    head: tuple[float, float]
    root: tuple[float, float]


def key_pose(
    arms: Arm = HANGING,
    legs: Leg = STRAIGHT,
    *,
    left_arm: Arm | None = None,
    right_arm: Arm | None = None,
    left_leg: Leg | None = None,
    right_leg: Leg | None = None,
    spine: tuple[float, float, float] = (0, 0, 0),
    head: tuple[float, float] = (0, 0),
    root: tuple[float, float] = (0, 0),
) -> KeyPose:
    """Builds a key pose; `arms` and `legs` apply to both sides unless a side is given separately."""
    return KeyPose(left_arm or arms, right_arm or arms, left_leg or legs, right_leg or legs, spine, head, root)


KEY_POSES: Mapping[str, KeyPose] = {
    "stand": key_pose(),
    "a pose": key_pose(arms=((0.7, -0.8, 0), (0.7, -0.8, 0.12))),
    "t pose": key_pose(arms=((1, 0, 0), (1, 0, 0.1))),
    "star": key_pose(arms=((0.8, 0.65, 0), (0.75, 0.8, 0.1)), legs=((0.55, -1, 0), (0.5, -1, -0.1))),
    "hands up": key_pose(arms=((0.4, 1, 0.1), (0.15, 1, 0.15)), head=(-8, 0)),
    "surrender": key_pose(arms=((1, 0.05, 0), (0.15, 1, 0.15))),
    "arms crossed": key_pose(
        left_arm=((0.25, -1, 0.4), (-0.85, 0.12, 0.6)), right_arm=((0.25, -1, 0.35), (-0.85, 0.02, 0.75))
    ),
    "hands on hips": key_pose(arms=ON_HIP, legs=APART),
    "hands behind head": key_pose(arms=((0.95, 0.5, -0.05), (-0.75, 0.62, -0.3))),
    "hands behind back": key_pose(arms=((0.45, -1, -0.5), (-0.65, -0.6, -0.4))),
    "phone": key_pose(left_arm=((0.35, -1, 0.35), (0.0, 1, 0.3)), head=(4, 12)),
    "wave": key_pose(left_arm=((0.9, 0.1, 0.15), (0.3, 1, 0.25))),
    "point forward": key_pose(left_arm=((0.15, 0.03, 1), (0.1, 0.08, 1))),
    "point aside": key_pose(left_arm=((1, 0.1, 0.15), (1, 0.15, 0.2)), right_arm=ON_HIP, head=(0, 40)),
    "reach forward": key_pose(arms=((0.25, 0.05, 1), (0.15, 0.1, 1)), spine=(14, 0, 0)),
    "reach up": key_pose(
        left_arm=((0.2, 1, 0.3), (0.1, 1, 0.3)),
        right_arm=((0.3, -1, -0.2), (0.2, -1, 0.1)),
        spine=(-8, 12, 0),
        head=(-20, 0),
    ),
    "clap": key_pose(arms=((0.35, -0.6, 0.8), (-0.38, 0.2, 1))),
    "carry": key_pose(arms=((0.25, -1, 0.15), (0.0, -0.05, 1)), spine=(-4, 0, 0)),
    "think": key_pose(left_arm=((0.2, -0.8, 0.55), (-0.35, 1, 0.25)), right_arm=((0.3, -1, 0.3), (-0.85, -0.1, 0.7))),
    "guard": key_pose(
        left_arm=((0.3, -0.7, 0.65), (-0.1, 1, 0.55)),
        right_arm=((0.35, -0.9, 0.4), (-0.15, 1, 0.6)),
        left_leg=((0.15, -1, 0.4), (0.1, -1, -0.1)),
        right_leg=((0.2, -1, -0.2), (0.2, -0.9, -0.5)),
        spine=(10, 0, -15),
    ),
    "walk": key_pose(
        left_arm=((0.15, -1, -0.4), (0.1, -1, 0.1)),
        right_arm=((0.15, -1, 0.4), (0.05, -0.8, 0.7)),
        left_leg=((0.06, -1, 0.5), (0.05, -1, 0.2)),
        right_leg=((0.06, -1, -0.25), (0.05, -1, -0.65)),
        spine=(4, 0, 8),
    ),
    "step": key_pose(
        left_arm=((0.18, -1, 0), (0.1, -1, 0.3)),
        right_arm=((0.18, -1, 0), (0.1, -1, 0.3)),
        left_leg=((0.06, -1, 0), (0.04, -1, -0.05)),
        right_leg=((0.06, -1, 0.3), (0.04, -0.8, -0.75)),
        spine=(4, 0, 0),
    ),
    "run": key_pose(
        left_arm=((0.25, -0.8, -0.8), (0.1, -0.6, 0.9)),
        right_arm=((0.25, -0.9, 0.5), (-0.15, 0.5, 0.9)),
        left_leg=((0.08, -0.55, 0.9), (0.05, -1, -0.4)),
        right_leg=((0.08, -1, -0.45), (0.05, -0.35, -1)),
        spine=(14, 0, 15),
        root=(8, 0),
    ),
    "squat": key_pose(
        arms=((0.25, -0.3, 1), (0.15, 0.1, 1)),
        legs=((0.45, -0.05, 0.9), (0.1, -1, -0.5)),
        spine=(24, 0, 0),
        root=(14, 0),
        head=(-15, 0),
    ),
    "half squat": key_pose(
        arms=((0.5, -0.7, 0.5), (0.1, -0.2, 1)),
        legs=((0.3, -0.8, 0.65), (0.1, -1, -0.4)),
        spine=(14, 0, 0),
        root=(8, 0),
    ),
    "lunge": key_pose(
        arms=ON_HIP,
        left_leg=((0.1, -0.45, 1), (0.05, -1, -0.05)),
        right_leg=((0.1, -1, -0.5), (0.08, -0.5, -1)),
    ),
    "side lunge": key_pose(
        arms=((0.3, -0.8, 0.7), (-0.2, -0.4, 1)),
        left_leg=((0.75, -0.7, 0.5), (0.15, -1, -0.3)),
        right_leg=((0.85, -1, 0.05), (0.8, -1, -0.05)),
        spine=(18, 0, 0),
    ),
    "front kick": key_pose(
        left_arm=((0.8, -0.4, 0.2), (0.3, -0.1, 1)),
        right_arm=((0.8, -0.4, -0.2), (0.4, -0.2, 0.9)),
        left_leg=((0.05, 0, 1), (0.05, 0, 1)),
        right_leg=((0.08, -1, 0.05), (0.03, -1, -0.15)),
        spine=(-8, 0, 12),
        root=(-8, 0),
    ),
    "side kick": key_pose(
        arms=((0.6, -0.4, 0.8), (-0.25, 0.35, 0.9)),
        left_leg=((1, -0.3, 0.1), (1, -0.3, -0.05)),
        spine=(0, 18, 0),
        root=(0, 12),
    ),
    "one leg": key_pose(
        arms=((0.45, 1, 0.05), (-0.15, 1, 0.1)),
        left_leg=((0.85, -0.6, 0.35), (-0.75, -0.75, -0.2)),
    ),
    "kneel": key_pose(arms=((0.3, -1, 0.2), (0.1, -0.95, 0.4)), legs=ON_KNEE),
    "kneel on one": key_pose(
        left_arm=((0.3, -0.9, 0.5), (0.1, -0.4, 0.9)),
        left_leg=((0.12, -0.1, 1), (0.1, -1, 0.05)),
        right_leg=((0.12, -1, 0.05), (0.08, -0.08, -1)),
        spine=(8, 0, 0),
    ),
    "sit on heels": key_pose(arms=ON_LAP, legs=((0.15, -0.3, 1), (0.1, -0.15, -1)), spine=(6, 0, 0)),
    "sit": key_pose(arms=ON_LAP, legs=ON_CHAIR, spine=(8, 0, 0)),
    "sit leaning": key_pose(arms=((0.3, -0.6, 0.7), (-0.1, -0.5, 0.8)), legs=ON_CHAIR, spine=(34, 0, 0)),
    "sit leg over leg": key_pose(
        left_arm=((0.3, -1, 0.2), (-0.25, -0.4, 0.8)),
        right_arm=((0.3, -1, 0.2), (-0.2, -0.35, 0.8)),
        left_leg=((0.12, -0.1, 1), (0.02, -1, 0.1)),
        right_leg=((-0.12, 0.12, 1), (-0.4, -0.8, 0.35)),
    ),
    "sit on floor": key_pose(
        arms=PROPPED,
        left_leg=((0.2, 0.05, 1), (0.15, 0, 1)),
        right_leg=((0.25, 0.55, 0.9), (0.1, -0.9, 0.5)),
        root=(-12, 0),
    ),
    "hug knees": key_pose(
        arms=((0.3, -0.5, 0.85), (-0.45, -0.3, 0.9)),
        legs=((0.12, 0.65, 0.8), (0.05, -1, 0.45)),
        spine=(30, 0, 0),
    ),
    "cross-legged": key_pose(
        arms=((0.35, -0.9, 0.3), (0.1, -0.35, 0.9)),
        left_leg=((0.85, -0.12, 0.6), (-1, -0.15, 0.3)),
        right_leg=((0.85, -0.12, 0.6), (-1, -0.15, 0.45)),
        spine=(10, 0, 0),
    ),
    "bow": key_pose(arms=((0.15, -1, 0.35), (0.05, -0.9, 0.5)), spine=(28, 0, 0), root=(14, 0), head=(18, 0)),
    "touch toes": key_pose(
        arms=((0.2, -0.1, 1), (0.1, 0.05, 1)),
        legs=((0.1, -1, 0.66), (0.05, -1, 0.6)),
        spine=(75, 0, 0),
        root=(35, 0),
        head=(10, 0),
    ),
    "side bend": key_pose(
        left_arm=((0.55, 0.95, 0), (-0.5, 0.9, 0.1)),
        right_arm=((0.6, -0.8, 0), (0.1, -0.95, 0.35)),
        legs=APART,
        spine=(0, 32, 0),
    ),
    "lie on back": key_pose(arms=((0.5, -0.85, 0), (0.35, -0.9, 0.15)), legs=APART, root=(-84, 0)),
    "lie knees up": key_pose(
        left_arm=((0.9, 0.4, 0), (-0.4, 0.9, 0.1)),
        right_arm=((0.5, -0.8, 0), (-0.4, -0.6, 0.5)),
        legs=((0.15, -0.6, 0.85), (0.1, -0.7, -0.8)),
        root=(-84, 0),
    ),
    "lie on front": key_pose(arms=((0.95, 0.3, 0.1), (-0.3, 0.95, 0.2)), legs=APART, root=(84, 0), head=(-15, 35)),
    "all fours": key_pose(
        arms=((0.15, -0.1, 1), (0.1, -0.05, 1)),
        legs=((0.12, -0.2, 1), (0.1, -1, -0.1)),
        root=(80, 0),
        head=(-28, 0),
    ),
    "push-up": key_pose(arms=((0.25, -0.2, 1), (0.1, -0.1, 1)), root=(70, 0), head=(-18, 0)),
    "throw": key_pose(
        left_arm=((0.85, 0.35, -0.5), (0.05, 0.9, -0.4)),
        right_arm=((0.5, 0.1, 0.9), (0.4, 0.2, 0.9)),
        left_leg=((0.1, -1, -0.3), (0.08, -1, -0.6)),
        right_leg=((0.1, -0.8, 0.6), (0.08, -1, 0.1)),
        spine=(-8, 0, 25),
    ),
    "dance": key_pose(
        left_arm=((0.9, 0.5, 0.1), (0.3, 0.9, 0.3)),
        right_arm=((0.7, -0.6, 0.3), (-0.45, -0.3, 0.8)),
        left_leg=((0.35, -0.9, 0.4), (-0.15, -1, -0.4)),
        right_leg=((0.15, -1, 0), (0.1, -1, -0.1)),
        spine=(0, -12, 15),
    ),
}

TRUNK = ("spine1", "spine2", "spine3", "neck", "head")
LIMBS = {
    (side, limb): tuple(SMPL24.index(f"{side}_{part}") for part in parts)
    for side in ("left", "right")
    for limb, parts in {
        "arm": ("collar", "shoulder", "elbow", "wrist", "hand"),
        "leg": ("hip", "knee", "ankle"),
    }.items()
}
# Largest rotation angle of each joint, degrees. The root has no limit.
LIMITS: Mapping[str, float] = {
    **dict.fromkeys(("spine1", "spine2", "spine3", "collar"), 35),
    **dict.fromkeys(("neck", "head", "ankle"), 45),
    **{"shoulder": 150, "elbow": 150, "wrist": 60, "hip": 130, "knee": 150, "foot": 30, "hand": 20},
}
KNEE_SIDEWAYS = 25.0  # how far a knee may turn off its hinge, degrees
# Standard deviation of the noise about x, y, z, degrees.
NOISE: Mapping[str, Direction] = {
    "pelvis": (5, 3, 5), "spine1": (6, 5, 4), "spine2": (5, 5, 4), "spine3": (5, 5, 4), "neck": (7, 9, 5),
    "head": (8, 11, 5), "hip": (12, 8, 8), "knee": (12, 2, 2), "ankle": (9, 6, 6), "foot": (6, 0, 0),
    "collar": (3, 5, 5), "shoulder": (14, 15, 15), "elbow": (6, 15, 5), "wrist": (12, 8, 14), "hand": (0, 0, 6),
}  # fmt: skip


def _of(name: str) -> str:
    """`left_knee` → `knee`."""
    return name.removeprefix("left_").removeprefix("right_")


def _unit(direction: np.ndarray) -> np.ndarray:
    return direction / np.linalg.norm(direction)


def _turn(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    return Rotation.from_rotvec(np.deg2rad([x, y, z])).as_matrix()


def _smallest_turn(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation that maps one unit vector onto another."""
    cosine = max(float(source @ target), -0.9999)
    x, y, z = np.cross(source, target)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def _limb(rest: np.ndarray, hinge: np.ndarray, limb: Arm | Leg, side: int, most_twist: float) -> tuple[np.ndarray, ...]:
    """Returns the global rotations of the upper and lower part of a limb.

    rest, hinge: direction and hinge axis of the limb in the T-pose. The upper part is twisted so that the lower part
    rotates about the hinge, by at most `most_twist` degrees, and less if the limb is only slightly bent.
    """
    upper, lower = (_unit(np.array(direction) * (side, 1, 1)) for direction in limb)
    turn = _smallest_turn(rest, upper)
    wanted = np.cross(upper, lower)
    bend = np.linalg.norm(wanted) if upper @ lower > 0 else 1.0
    if bend > 1e-6:
        wanted, current = _unit(wanted), turn @ hinge
        twist = np.arctan2(np.cross(current, wanted) @ upper, current @ wanted)
        twist = np.clip(twist, -np.deg2rad(most_twist), np.deg2rad(most_twist)) * np.clip((bend - 0.1) / 0.4, 0, 1)
        turn = Rotation.from_rotvec(twist * upper).as_matrix() @ turn
    return turn, _smallest_turn(turn @ rest, lower) @ turn


def key_rotations(key: KeyPose) -> np.ndarray:
    """Returns a key pose as local rotations (24, 3, 3)."""
    rotations = np.tile(np.eye(3), (len(SMPL24), 1, 1))
    rotations[0] = _turn(z=-key.root[1]) @ _turn(x=key.root[0])
    forward, right, twist = key.spine
    for name in TRUNK[:3]:
        rotations[SMPL24.index(name)] = _turn(forward / 3, twist / 3, -right / 3)
    for name in TRUNK[3:]:
        rotations[SMPL24.index(name)] = _turn(key.head[0] / 2, key.head[1] / 2)
    for side, sign, arm, leg in (("left", 1, key.left_arm, key.left_leg), ("right", -1, key.right_arm, key.right_leg)):
        collar, shoulder, elbow, _, _ = LIMBS[side, "arm"]
        upper, lower = _limb(np.array([sign, 0.0, 0.0]), np.array([0.0, -sign, 0.0]), arm, sign, 100)
        raised = max(0.0, _unit(np.array(arm[0]))[1])
        rotations[collar] = _turn(z=sign * 25 * raised)  # the collar helps to raise the arm
        rotations[shoulder] = rotations[collar].T @ upper
        rotations[elbow] = upper.T @ lower
        hip, knee, ankle = LIMBS[side, "leg"]
        upper, lower = _limb(np.array([0.0, -1.0, 0.0]), np.array([1.0, 0.0, 0.0]), leg, sign, 60)
        rotations[hip], rotations[knee] = upper, upper.T @ lower
        # The foot is flat on the ground as far as the ankle allows; if the shank lies down, the foot is pointed.
        up = (rotations[0] @ lower).T @ np.array([0.0, 1.0, 0.0])
        flat = Rotation.from_matrix(_smallest_turn(np.array([0.0, 1.0, 0.0]), up))
        angle = np.rad2deg(flat.magnitude())
        rotations[ankle] = (flat ** min(1.0, 35 / max(angle, 1.0))).as_matrix() if angle < 55 else _turn(x=30)
    return rotations


@cache
def _key_quaternions(keys: tuple[KeyPose, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Quaternions of the key poses and of their mirror images, (N, 24, 4) each."""
    plain = np.stack([key_rotations(key) for key in keys])
    # Reflects a rotation in x: see `pose_rft.body.rotations.mirror_rotations`.
    mirrored = plain[:, list(SMPL24.flip)] * np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])
    first, second = (Rotation.from_matrix(m.reshape(-1, 3, 3)).as_quat().reshape(-1, 24, 4) for m in (plain, mirrored))
    return first, second


def _blend(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Interpolates quaternions (24, 4) from a to b."""
    mixed = (1 - share) * a + share * b * np.where((a * b).sum(-1, keepdims=True) < 0, -1, 1)
    return mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)


def limit(rotations: np.ndarray) -> np.ndarray:
    """Clamps local rotations (24, 3, 3) to `LIMITS`; knees bend only backwards and turn little off their hinge."""
    vectors = Rotation.from_matrix(rotations).as_rotvec()
    for joint, name in enumerate(SMPL24.joints[1:], 1):
        if _of(name) == "knee":
            vectors[joint, 0] = max(vectors[joint, 0], 0.0)
            sideways = np.deg2rad(KNEE_SIDEWAYS)
            vectors[joint, 1:] = np.clip(vectors[joint, 1:], -sideways, sideways)
        angle, most = np.linalg.norm(vectors[joint]), np.deg2rad(LIMITS[_of(name)])
        if angle > most:
            vectors[joint] *= most / angle
    return Rotation.from_rotvec(vectors).as_matrix()


@dataclass(frozen=True)
class PoseSampler:
    """Draws random poses. keys: the starting key poses; heading, tilt: spread of the whole body, degrees; noise: factor
    on `NOISE`; swap_arms: probability of taking the arms from another key; blend: largest blend weight of another key;
    own_root: probability that the root is not blended."""

    keys: tuple[KeyPose, ...] = tuple(KEY_POSES.values())
    heading: float = 60.0
    tilt: float = 4.0
    noise: float = 1.0
    swap_arms: float = 0.5
    blend: float = 0.9
    own_root: float = 0.7

    def key_index(self, rng: np.random.Generator) -> np.ndarray:
        """Quaternions of a random key pose or of its mirror image."""
        plain, mirrored = _key_quaternions(self.keys)
        return (mirrored if rng.uniform() < 0.5 else plain)[rng.integers(len(plain))]

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """One pose as local rotations (24, 3, 3) float64 in the body frame."""
        pose = self.key_index(rng).copy()
        if rng.uniform() < self.swap_arms:  # arms from one other key or, half of the time, each arm from its own
            left = self.key_index(rng)
            right = self.key_index(rng) if rng.uniform() < 0.5 else left
            for side, donor in (("left", left), ("right", right)):
                pose[list(LIMBS[side, "arm"])] = donor[list(LIMBS[side, "arm"])]
        other = self.key_index(rng)
        mixed = _blend(pose, other, self.blend * rng.beta(1.0, 2.2))
        if rng.uniform() < self.own_root:  # lying and standing are rarely mixed
            mixed[0] = pose[0]
        spread = np.array([NOISE[_of(name)] for name in SMPL24.joints])
        noise = rng.normal(size=(len(SMPL24), 3)) * np.deg2rad(spread) * self.noise * rng.uniform(0.4, 1.2)
        rotations = limit((Rotation.from_quat(mixed) * Rotation.from_rotvec(noise)).as_matrix())
        tilt_z, tilt_x = rng.normal(0.0, self.tilt, 2)
        turn = _turn(z=tilt_z) @ _turn(x=tilt_x) @ _turn(y=rng.uniform(-self.heading, self.heading))
        rotations[0] = turn @ rotations[0]
        return rotations


DEFAULT_SAMPLER = PoseSampler()


def sample_pose(rng: np.random.Generator, sampler: PoseSampler = DEFAULT_SAMPLER) -> np.ndarray:
    """One pose as local rotations (24, 3, 3) float64, body frame; depends on `rng` and `sampler` only."""
    return sampler.sample(rng)
