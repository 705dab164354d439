"""Captions in a held-out grammar that is never trained on: lists by body part, with a vocabulary of their own.

Only evaluation uses it, to test whether a policy understands a sentence or only knows the sentences it was trained on.
It shares neither structure nor phrases with the automatic captions (`sentences`, `wording`) or the sample's human ones:
no main clauses; each body part is a heading with its facts after a colon. The facts are the same posecodes.
"""

from collections.abc import Mapping, Sequence

from pose_rft.captions.draws import Draws
from pose_rft.captions.posecodes import Posecode
from pose_rft.captions.sentences import Told
from pose_rft.captions.wording import Phrases

PARTS_TOLD = 4  # beside the posture, the most unusual ones
TOLD_HEIGHT = 0.3  # rarity above which the height of a hand is told

POSTURE: Mapping[str, Phrases] = {
    "standing": ("an upright stance", "a stance on the soles"),
    "bending": ("a deep bow from the hips", "a bow toward the floor"),
    "lunging": ("a wide fencing step", "a long low stride"),
    "squatting": ("a low squat", "a hunker near the heels"),
    "kneeling": ("a kneel", "weight borne by a shin on the floor"),
    "sitting": ("a seat", "weight borne by the buttocks"),
    "on all fours": ("a crawl", "weight borne by palms and knees"),
    "upside down": ("an inversion", "hips over a hanging head"),
    "other": ("an odd balance", "a freeze mid-move"),
    "lying back": ("a supine rest", "a rest belly-up"),
    "lying belly": ("a prone rest", "a rest belly-down"),
    "lying left side": ("a sideways rest, left flank below",),
    "lying right side": ("a sideways rest, right flank below",),
}
OPENERS: Phrases = ("Posture: {posture}.", "Basis: {posture}.")
PARTS = {"torso": "Trunk", "head": "Skull", "hands": "Palms", "feet": "Soles", "knees": "Kneecaps"}
LIMBS = {
    "arm": {"upper_arm": "humerus", "forearm": "lower half", "bend": "elbow joint", "end": "palm"},
    "leg": {"thigh": "upper half", "shin": "lower half", "bend": "knee joint", "end": "heel"},
}
AXIS: Mapping[str, Phrases] = {
    "up": ("skyward", "rising"),
    "down": ("floorward", "dropping"),
    "out": ("off the midline", "flankward"),
    "in": ("to the midline", "crossing over"),
    "front": ("ahead", "frontward"),
    "back": ("rearward", "aft"),
}
BEND: Mapping[str, Phrases] = {
    "straight": ("unbent", "locked"),
    "slightly bent": ("nearly unbent", "soft"),
    "half bent": ("a wide V", "open by half"),
    "square": ("an L", "ninety degrees wide"),
    "sharply bent": ("a tight V", "under ninety degrees"),
    "folded": ("shut", "closed all the way"),
}
CONTACT: Mapping[str, Phrases] = {
    "touch": ("{end} against {place}", "{end} laid upon {place}"),
    "near": ("{end} a span off {place}", "{end} hovering by {place}"),
}
PLACES = {"top of the head": "scalp", "back of the head": "nape", "lower back": "lumbar spine"}  # else as they are
DEGREE = {"slight": "barely", "clear": "plainly", "strong": "greatly"}
SIDEWARD = {"left": "leftward", "right": "rightward", "forward": "frontward", "backward": "rearward"}
TURN: Mapping[str, str] = {
    "lean": "{degree} pitched {way}",
    "side": "{degree} keeled {way}",
    "twist": "{degree} wrung {way} over the pelvis",
    "turn": "{degree} swivelled {way}",
    "nod": "nose {degree} {way}",
    "tilt": "crown {degree} keeled {way}",
}
NOD = {"up": "skyward", "down": "floorward"}
RELATION: Mapping[str, str] = {
    "hands gap together": "joined",
    "hands gap close": "a span between them",
    "hands gap shoulder width": "one chest breadth between them",
    "hands gap far apart": "maximal gap",
    "hands higher": "{side} one on top",
    "feet crossed": "crossing, {side} one in the lead",
    "feet gap together": "joined",
    "feet gap hip width": "one pelvis breadth between them",
    "feet gap wide": "large gap",
    "feet gap very wide": "maximal gap",
    "feet step some": "{side} one leading by a pace",
    "feet step far": "{side} one leading by a giant pace",
    "feet higher some": "{side} one a little off the floor",
    "feet higher far": "{side} one high off the floor",
    "knees gap wide": "splayed",
    "knees gap together": "joined",
}


def told_unheard(codes: Sequence[Posecode], rng: Draws) -> Told:
    """One caption of one pose, and which of the pose's facts it states.

    Args:
        codes: the facts of the pose, from `posecodes`. rng: draws the words; order and choice follow from the facts.
    """
    parts: dict[str, list[Posecode]] = {}
    for code in codes:
        if code.kind != "height" or code.rarity > TOLD_HEIGHT:
            parts.setdefault(code.part, []).append(code)
    (posture,) = parts.pop("body")
    rarest = sorted(parts, key=lambda part: -max(code.rarity for code in parts[part]))[:PARTS_TOLD]
    lines = [_pick(OPENERS, rng).format(posture=_pick(POSTURE[posture.value], rng))]
    stated = [posture]
    for part in rarest:
        lines.append(f"{_heading(part)}: {', '.join(_fact(code, rng) for code in parts[part])}.")
        stated += parts[part]
    return Told(" ".join(lines), tuple(stated))


def _heading(part: str) -> str:
    return PARTS.get(part) or part.replace("_", " ").capitalize()


def _fact(code: Posecode, rng: Draws) -> str:
    if code.part in ("torso", "head"):
        kind, degree = code.kind.rsplit(" ", 1)
        way = NOD[code.value] if kind == "nod" else SIDEWARD[code.value]
        return TURN[kind].format(degree=DEGREE[degree], way=way)
    if code.part in PARTS:
        sided = code.value in ("left", "right")
        return RELATION[f"{code.part} {code.kind}" + ("" if sided else f" {code.value}")].format(side=code.value)
    names = LIMBS[code.part.rpartition("_")[2]]
    if code.kind in CONTACT:
        return _pick(CONTACT[code.kind], rng).format(
            end=names["end"], place=f"the {PLACES.get(code.value, code.value)}"
        )
    if code.kind == "height":
        return f"{names['end']} over the crown" if code.value == "above head" else f"{names['end']} at {code.value}"
    if code.kind == "bend":
        return f"{names['bend']} {_pick(BEND[code.value], rng)}"
    return f"{names[code.kind]} {' plus '.join(_pick(AXIS[axis], rng) for axis in code.value.split())}"


def _pick(phrases: Phrases, rng: Draws) -> str:
    return phrases[rng.below(len(phrases))]
