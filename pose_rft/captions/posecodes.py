"""A pose as a short list of categorised facts ("posecodes"), each scored by how unusual it is.

The idea is PoseScript's (Delmas et al., ECCV 2022): measure, categorise, keep what stands out, put it into words. The
measurements, categories and thresholds here are this project's own:

- direction of each upper arm and forearm in the chest frame, of each thigh and shin in the pelvis frame (26 cells of
  about 45 degrees, named by their outward, up and front parts);
- flexion of elbows and knees; lean, twist of the torso; turn, nod and tilt of the head;
- what a hand or a foot touches or is next to; heights of hands and feet; distances between hands, knees and feet;
  which foot is ahead, higher or crosses over.

Unusual means far from what the posture already implies: hanging arms say little, and thighs that point forward say
little about a sitting person.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from pose_rft.captions.geometry import SIDES, Body, unit
from pose_rft.captions.predicates import Posture, lying_bearings, postures


class Posecode(NamedTuple):
    """One fact: `part` (`left_arm`, `hands`, …), `kind` (what was measured), category, 0 (usual) … 1 (unusual)."""

    part: str
    kind: str
    value: str
    rarity: float


# Direction cells as (outward, up, front); a limb is assigned to the nearest of the 26.
AXIS_WORDS = (("in", "", "out"), ("down", "", "up"), ("back", "", "front"))
_STEPS = [(o, u, f) for o in (-1, 0, 1) for u in (-1, 0, 1) for f in (-1, 0, 1) if (o, u, f) != (0, 0, 0)]
_CELLS = unit(np.array(_STEPS, float))
CELL_NAMES = tuple(
    " ".join(filter(None, (AXIS_WORDS[1][u + 1], AXIS_WORDS[0][o + 1], AXIS_WORDS[2][f + 1]))) for o, u, f in _STEPS
)

FLEXION = (
    (18, "straight"),
    (42, "slightly bent"),
    (72, "half bent"),
    (108, "square"),
    (135, "sharply bent"),
    (181, "folded"),
)

# What a posture implies: thigh and shin direction (outward, up, front), knee flexion in degrees.
_STRAIGHT = ((0.1, -1.0, 0.0), (0.05, -1.0, -0.05), 5.0)
_IMPLIED_LEGS: Mapping[Posture, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "sitting": ((0.2, -0.15, 1.0), (0.1, -1.0, 0.05), 85.0),
    "squatting": ((0.4, -0.2, 0.9), (0.1, -1.0, -0.4), 105.0),
    "kneeling": ((0.1, -1.0, 0.1), (0.1, -0.1, -1.0), 90.0),
    "on all fours": ((0.1, -0.3, 1.0), (0.1, -1.0, -0.1), 80.0),
}
_IMPLIED_ARM, _IMPLIED_FLEXION = (0.2, -1.0, 0.05), 18.0

TOUCH, NEAR = 0.155, 0.235  # metres between a hand and a landmark, for legs of 0.9 m
_YARDSTICK = 0.9


def posecodes(body: Body) -> list[list[Posecode]]:
    """All facts of each pose, unordered."""
    kinds = postures(body)
    codes: list[list[Posecode]] = [[] for _ in range(len(body))]
    for family in (_posture, _torso, _head, _limbs, _contacts, _hands, _feet):
        for own, more in zip(codes, family(body, kinds), strict=True):
            own.extend(more)
    return codes


def mirrored(code: Posecode) -> Posecode:
    """Returns the same fact for the left-right mirrored pose."""
    return code._replace(part=swap_sides(code.part), value=swap_sides(code.value))


def swap_sides(name: str) -> str:
    """Returns the name with left and right swapped."""
    return name.replace("left", "\0").replace("right", "left").replace("\0", "right")


Families = list[list[Posecode]]


def _posture(body: Body, kinds: Sequence[Posture]) -> Families:
    bearings = lying_bearings(body)
    return [
        [Posecode("body", "posture", f"lying {bearing}" if kind == "lying" else kind, 1.0)]
        for kind, bearing in zip(kinds, bearings, strict=True)
    ]


def _torso(body: Body, kinds: Sequence[Posture]) -> Families:
    """Lean of the torso relative to the vertical, and twist of the chest relative to the pelvis."""
    up = body.torso_up
    forward = np.degrees(np.arctan2(-up[:, 1], np.hypot(up[:, 0], up[:, 2])))
    sideways = np.degrees(np.arcsin(up[:, 0].clip(-1, 1)))
    relative = np.einsum("nji,njk->nik", body.frame("pelvis"), body.frame("spine3"))  # chest axes in the pelvis frame
    twist = np.degrees(np.arctan2(relative[:, 0, 2], relative[:, 2, 2]))
    families: Families = []
    for i, kind in enumerate(kinds):
        codes = []
        if kind not in ("lying", "on all fours", "upside down"):
            codes += _signed("torso", "lean", forward[i], ("backward", "forward"), (11, 24, 45))
            codes += _signed("torso", "side", sideways[i], ("right", "left"), (9, 17, 30))
        codes += _signed("torso", "twist", twist[i], ("right", "left"), (12, 22, 38))
        families.append(codes)
    return families


def _head(body: Body, kinds: Sequence[Posture]) -> Families:
    """Where the face points and how the head tilts, seen from the chest."""
    relative = np.einsum("nji,njk->nik", body.frame("spine3"), body.frame("head"))
    front, top = relative[:, :, 2], relative[:, :, 1]
    turn = np.degrees(np.arctan2(front[:, 0], front[:, 2]))
    nod = np.degrees(np.arcsin(front[:, 1].clip(-1, 1)))
    tilt = np.degrees(np.arcsin(top[:, 0].clip(-1, 1)))
    return [
        [
            *_signed("head", "turn", turn[i], ("right", "left"), (12, 22, 38)),
            *_signed("head", "nod", nod[i], ("down", "up"), (12, 22, 38)),
            *_signed("head", "tilt", tilt[i], ("right", "left"), (12, 22, 38)),
        ]
        for i in range(len(body))
    ]


def _limbs(body: Body, kinds: Sequence[Posture]) -> Families:
    """Direction of both segments and flexion between them, for each arm and leg."""
    segments = {"upper_arm": body.upper_arms, "forearm": body.forearms, "thigh": body.thighs, "shin": body.shins}
    cells = {name: (directions @ _CELLS.T).argmax(-1).tolist() for name, directions in segments.items()}
    bends = {"arm": body.elbow_flexion.tolist(), "leg": body.knee_flexion.tolist()}
    families: Families = []
    for i, kind in enumerate(kinds):
        usual = {"arm": _IMPLIED_FLEXION, "leg": _IMPLIED_LEGS.get(kind, _STRAIGHT)[2]}
        codes = []
        for s, side in enumerate(SIDES):
            for name in segments:
                limb = "arm" if name in ("upper_arm", "forearm") else "leg"
                cell = cells[name][i][s]
                codes.append(Posecode(f"{side}_{limb}", name, CELL_NAMES[cell], _strangeness(kind, name)[cell]))
            for limb, flexions in bends.items():
                flexion = flexions[i][s]
                word = next(word for limit, word in FLEXION if flexion < limit)
                codes.append(Posecode(f"{side}_{limb}", "bend", word, min(abs(flexion - usual[limb]) / 130, 1.0)))
        families.append(codes)
    return families


@cache
def _strangeness(kind: Posture, segment: str) -> list[float]:
    """How far each cell is from the direction that the posture implies for a segment."""
    thigh, shin, _ = _IMPLIED_LEGS.get(kind, _STRAIGHT)
    implied = unit(np.array({"thigh": thigh, "shin": shin}.get(segment, _IMPLIED_ARM)))
    return [min(float(np.degrees(np.arccos(cell @ implied)) / 120), 1.0) for cell in _CELLS]


def _contacts(body: Body, kinds: Sequence[Posture]) -> Families:
    """What each hand touches or is next to, hands on the ground, and feet that touch the other leg."""
    scale = body.leg_length / _YARDSTICK
    names, points = _landmarks(body, scale)
    families: Families = [[] for _ in range(len(body))]
    for side in SIDES:
        own = [j for j, name in enumerate(names) if name not in (f"{side} hand", f"{side} elbow")]
        distances = np.linalg.norm(points[:, own] - body.joint(f"{side}_hand")[:, None], axis=-1) / scale[:, None]
        nearest = distances.argmin(1)
        for i in range(len(body)):
            distance, name = distances[i, nearest[i]], names[own[nearest[i]]]
            if distance < NEAR:
                touching = distance < TOUCH
                code = Posecode(f"{side}_arm", "touch" if touching else "near", name, 0.95 if touching else 0.7)
                families[i].append(code)
            elif body.height(f"{side}_wrist")[i] < 0.16 * scale[i] and kinds[i] not in ("lying", "upside down"):
                families[i].append(Posecode(f"{side}_arm", "touch", "ground", 0.8))
        other = SIDES[1 - SIDES.index(side)]
        leg = [names.index(f"{other} knee"), names.index(f"{other} thigh")]
        reach = np.linalg.norm(points[:, leg] - body.joint(f"{side}_ankle")[:, None], axis=-1) / scale[:, None]
        for i in np.flatnonzero(reach.min(1) < 0.2).tolist():
            families[i].append(Posecode(f"{side}_leg", "touch", names[leg[reach[i].argmin()]], 0.95))
    return families


def _landmarks(body: Body, scale: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Points on the body surface that hands may touch: names and (N, L, 3) positions, metres."""
    named: dict[str, np.ndarray] = {}

    def spot(name: str, at: np.ndarray, part: str, left: float = 0.0, up: float = 0.0, front: float = 0.0) -> None:
        named[name] = at + body.frame(part) @ np.array([left, up, front]) * scale[:, None]

    head = body.joint("head")
    spot("top of the head", head, "head", up=0.2)
    spot("face", head, "head", up=0.07, front=0.13)
    spot("back of the head", head, "head", up=0.08, front=-0.1)
    spot("chin", head, "head", up=-0.03, front=0.1)
    spot("chest", body.joint("spine3"), "spine3", front=0.14)
    spot("belly", body.joint("spine1"), "spine1", front=0.16)
    spot("lower back", body.joint("spine1"), "spine1", front=-0.12)
    for side, sign in zip(SIDES, (1.0, -1.0), strict=True):
        spot(f"{side} ear", head, "head", left=0.1 * sign, up=0.07)
        spot(f"{side} shoulder", body.joint(f"{side}_shoulder"), "spine3", up=0.04)
        spot(f"{side} elbow", body.joint(f"{side}_elbow"), "spine3")
        spot(f"{side} hand", body.joint(f"{side}_hand"), "spine3")
        spot(f"{side} hip", body.joint(f"{side}_hip"), "pelvis", left=0.08 * sign, up=0.1)
        thigh = (body.joint(f"{side}_hip") + body.joint(f"{side}_knee")) / 2
        spot(f"{side} thigh", thigh, f"{side}_hip", front=0.08)
        spot(f"{side} knee", body.joint(f"{side}_knee"), f"{side}_hip", front=0.05)
        spot(f"{side} shin", (body.joint(f"{side}_knee") + body.joint(f"{side}_ankle")) / 2, f"{side}_knee", front=0.05)
        spot(f"{side} foot", body.joint(f"{side}_foot"), f"{side}_ankle", up=0.04)
    return list(named), np.stack(list(named.values()), axis=1)


def _hands(body: Body, kinds: Sequence[Posture]) -> Families:
    """Distance between the hands, which one is higher, and their height along the body."""
    scale = body.leg_length / _YARDSTICK
    gap = np.linalg.norm(body.joint("left_hand") - body.joint("right_hand"), axis=-1) / scale
    drop = (body.joint("left_hand") - body.joint("right_hand"))[:, 2] / scale
    levels = [("head", body.joint("head")[:, 2]), ("shoulder", body.pair("shoulder")[..., 2].mean(1))]
    levels += [("hip", body.pair("hip")[..., 2].mean(1)), ("knee", body.pair("knee")[..., 2].mean(1))]
    families: Families = []
    for i, kind in enumerate(kinds):
        codes = []
        for limit, word, rarity in ((0.17, "together", 0.95), (0.32, "close", 0.6), (0.55, "shoulder width", 0.3)):
            if gap[i] < limit:
                codes.append(Posecode("hands", "gap", word, rarity))
                break
        else:
            if gap[i] > 1.2:
                codes.append(Posecode("hands", "gap", "far apart", 0.45))
        if abs(drop[i]) > 0.28:
            higher = SIDES[int(drop[i] < 0)]
            codes.append(Posecode("hands", "higher", higher, min(abs(float(drop[i])) * 0.6, 0.75)))
        if kind not in ("lying", "upside down", "on all fours", "other"):
            for side in SIDES:
                z = body.joint(f"{side}_hand")[i, 2]
                if z > levels[0][1][i] + 0.15 * scale[i]:
                    codes.append(Posecode(f"{side}_arm", "height", "above head", 0.8))
                    continue
                name, level = min(levels, key=lambda item: abs(item[1][i] - z))
                if abs(level[i] - z) < 0.13 * scale[i]:
                    codes.append(Posecode(f"{side}_arm", "height", f"{name} level", 0.35 if name != "hip" else 0.15))
        families.append(codes)
    return families


def _feet(body: Body, kinds: Sequence[Posture]) -> Families:
    """Stance width, step, lifted foot, crossed ankles, and distance between the knees."""
    leg = body.leg_length
    ankles = body.seen_from("pelvis", body.joint("left_ankle") - body.joint("right_ankle")) / leg[:, None]
    knees = np.linalg.norm(body.joint("left_knee") - body.joint("right_knee"), axis=-1) / leg
    feet = np.linalg.norm(body.joint("left_ankle") - body.joint("right_ankle"), axis=-1) / leg
    drop = (body.joint("left_ankle") - body.joint("right_ankle"))[:, 2] / leg
    families: Families = []
    for i, kind in enumerate(kinds):
        codes = []
        width, step = float(ankles[i, 0]), float(ankles[i, 2])
        if width < -0.08:
            codes.append(Posecode("feet", "crossed", SIDES[int(step < 0)], 0.9))
        elif feet[i] < 0.22:
            codes.append(Posecode("feet", "gap", "together", 0.5))
        elif width > 0.75:
            codes.append(Posecode("feet", "gap", "very wide", 0.9))
        elif width > 0.5:
            codes.append(Posecode("feet", "gap", "wide", 0.65))
        elif feet[i] < 0.42:
            codes.append(Posecode("feet", "gap", "hip width", 0.2))
        if abs(step) > 0.25:
            far = "far" if abs(step) > 0.6 else "some"
            codes.append(Posecode("feet", f"step {far}", SIDES[int(step < 0)], min(0.3 + abs(step) * 0.6, 0.9)))
        if abs(drop[i]) > 0.2:
            far = "far" if abs(drop[i]) > 0.5 else "some"
            codes.append(
                Posecode("feet", f"higher {far}", SIDES[int(drop[i] < 0)], min(0.35 + abs(float(drop[i])), 0.95))
            )
        if kind in ("sitting", "squatting", "kneeling", "lying"):
            if knees[i] > 0.75:
                codes.append(Posecode("knees", "gap", "wide", 0.7))
            elif knees[i] < 0.2:
                codes.append(Posecode("knees", "gap", "together", 0.5))
        families.append(codes)
    return families


def _signed(
    part: str, kind: str, degrees: float, words: tuple[str, str], limits: tuple[float, float, float]
) -> list[Posecode]:
    """A slight, clear or strong deviation to the negative or positive side; empty below the first limit."""
    size = abs(float(degrees))
    if size < limits[0]:
        return []
    degree = "slight" if size < limits[1] else "clear" if size < limits[2] else "strong"
    rarity = {"slight": 0.35, "clear": 0.65, "strong": 0.95}[degree]
    return [Posecode(part, f"{kind} {degree}", words[int(degrees > 0)], rarity)]
