"""Captions as an annotator would write them: the action first, then the limbs that matter, in free order.

They stand in for PoseScript's human-written captions. Their grammar shares nothing with that of the automatic captions
(`pose_rft.captions`): a caption opens with an action or gesture and goes on with whole limbs, as a description, an
instruction or a note without verbs. Unremarkable limbs are left out, and two limbs that do the same share a clause.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pose_rft.sample.pose_attributes import Arm, Leg, Observation

Voice = Literal["describing", "instructing", "noting"]
SIDES = ("left", "right")


@dataclass(frozen=True)
class Phrase:
    """`their left arm` + is + `stretched` + `out to the side`, or `stretch` + `your left arm` + `out to the side`."""

    participle: str
    verb: str
    rest: str


def _phrases(*rows: str) -> tuple[Phrase, ...]:
    """Parses rows of the form `participle|verb|rest`."""
    return tuple(Phrase(*(part.strip() for part in row.split("|"))) for row in rows)


STRETCHED = {
    "down": _phrases("hanging|let|down", "relaxed|relax|at the side", "lowered|lower|along the body"),
    "overhead": _phrases(
        "raised|raise|straight up", "stretched|stretch|high overhead", "reaching|reach|for the ceiling"
    ),
    "out": _phrases("stretched|stretch|out to the side", "extended|extend|sideways at shoulder height"),
    "up and out": _phrases("raised|raise|up and outward", "stretched|stretch|diagonally up to the side"),
    "down and out": _phrases("held|hold|a little away from the body", "lowered|lower|out and down to the side"),
    "forward": _phrases("stretched|stretch|straight ahead", "extended|extend|forward at chest height"),
    "forward and up": _phrases("raised|raise|in front and upward", "reaching|reach|up and ahead"),
    "forward and down": _phrases("held|hold|low in front", "reaching|reach|down and forward"),
    "forward and out": _phrases("reaching|reach|forward and to the outside", "opened|open|wide in front"),
    "back": _phrases("stretched|stretch|back behind the body", "swung|swing|to the rear"),
    "back and down": _phrases("trailing|let|slightly behind", "swung|swing|a bit backward"),
    "across": _phrases("reaching|reach|across the body", "crossed|cross|over to the other side"),
    "across and up": _phrases("reaching|reach|up across the face", "crossed|cross|over at head height"),
}
BENT = {
    "down": _phrases("bent|bend|close to the body", "tucked|tuck|in at the side"),
    "overhead": _phrases("raised|raise|over the head with a bent elbow", "curved|curve|above the head"),
    "out": _phrases("lifted|lift|sideways with the elbow bent", "bent|bend|out to the side like a wing"),
    "up and out": _phrases("raised|raise|with the hand up beside the head", "bent|bend|upward like a goalpost"),
    "down and out": _phrases("bent|bend|away from the waist", "held|hold|loosely off to the side with a bent elbow"),
    "forward": _phrases("bent|bend|in front of the chest", "held|hold|forward with the elbow bent"),
    "forward and up": _phrases("bent|bend|with the hand up in front", "raised|raise|bent in front of the face"),
    "forward and down": _phrases("bent|bend|in front of the waist", "held|hold|in front with the forearm forward"),
    "forward and out": _phrases("bent|bend|in front, opening outward", "lifted|lift|forward and out with a bent elbow"),
    "back": _phrases("pulled|pull|back with the elbow bent", "drawn|draw|behind like a bow"),
    "back and down": _phrases("pulled|pull|a little behind the waist", "bent|bend|with the elbow pointing back"),
    "across": _phrases("folded|fold|across the trunk", "bent|bend|over to the opposite side"),
    "across and up": _phrases("folded|fold|up in front of the neck", "bent|bend|across under the chin"),
}
LEG_STRAIGHT = {
    "forward": _phrases("stretched|stretch|straight out in front", "extended|extend|forward"),
    "high": _phrases("kicked|kick|up high in front", "lifted|lift|straight up in the air"),
    "back": _phrases("stretched|stretch|out behind", "extended|extend|backward"),
    "out": _phrases("lifted|lift|out to the side", "stretched|stretch|sideways"),
    "forward and out": _phrases("stretched|stretch|forward and outward",),
    "slightly forward": _phrases("placed|place|a little ahead", "moved|move|slightly forward"),
    "slightly out": _phrases("placed|place|out to the side", "set|set|wide"),
    "inward": _phrases("crossed|cross|over to the other side",),
}  # fmt: skip
LEG_BENT = {
    "forward": _phrases("bent|bend|with the thigh lifted in front", "raised|raise|with a bent knee"),
    "high": _phrases("pulled|pull|up toward the chest", "drawn|draw|up high with the knee bent"),
    "back": _phrases("bent|bend|behind with the heel off the ground", "folded|fold|back"),
    "out": _phrases("bent|bend|out to the side", "opened|open|sideways with the knee bent"),
    "forward and out": _phrases("bent|bend|outward in front", "opened|open|to the outside with a bent knee"),
    "slightly forward": _phrases("bent|bend|a bit in front", "stepping|step|forward with a soft knee"),
    "slightly out": _phrases("bent|bend|slightly outward",),
    "inward": _phrases("bent|bend|inward over the other one", "crossed|cross|over with the knee bent"),
    "down": _phrases("bent|bend|so that the heel lifts behind", "flexed|flex|at the knee"),
}  # fmt: skip

# posture → (imperative, participle or equivalent)
POSTURES = {
    "standing": ("stand", "standing"),
    "bending": ("bend over", "bending over"),
    "lunging": ("lunge", "lunging"),
    "squatting": ("squat", "squatting"),
    "kneeling": ("kneel", "kneeling"),
    "sitting": ("sit", "sitting"),
    "lying": ("lie", "lying"),
    "on all fours": ("go on all fours", "on hands and knees"),
    "upside down": ("turn upside down", "upside down"),
    "other": ("hold the pose", "holding an unusual pose"),
}
SUBJECTS = ("the person", "someone", "a person", "the figure", "this person")
OWNERS: dict[Voice, str] = {"describing": "their", "instructing": "your", "noting": "the"}


def human_captions(rotations: np.ndarray, rest_joints: np.ndarray, rng: np.random.Generator, n: int = 1) -> list[str]:
    """Writes `n` captions of one pose.

    Args:
        rotations: (24, 3, 3) local rotations, root in the AMASS frame without heading.
        rest_joints: (24, 3) joints of the body model in the rest pose, metres.
    """
    observation = Observation(rotations, rest_joints)
    return [_caption(observation, rng) for _ in range(n)]


def _caption(seen: Observation, rng: np.random.Generator) -> str:
    voice: Voice = ("describing", "instructing", "noting")[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
    where = _where(seen, rng)
    gesture, tells_arms = _gesture(seen, rng)
    clauses: list[str] = []
    if not tells_arms:
        clauses += _limbs(voice, "arm", [_arm(arm, rng) for arm in seen.arms], _same_arms(seen), rng)
    clauses += _leg_clauses(voice, seen, where, rng)
    trunk = _trunk(voice, seen, rng) + _head(voice, seen, rng)
    order = rng.permutation(3)
    parts: list[list[str]] = [clauses[: len(clauses) // 2 + 1], clauses[len(clauses) // 2 + 1 :], trunk]
    # Arms usually come before legs, as people write; the trunk can come anywhere.
    if order[2] == 0:
        parts = [parts[2], parts[0], parts[1]]
    elif order[2] == 1:
        parts = [parts[0], parts[2], parts[1]]
    return _join(voice, _opening(voice, seen, where, gesture, rng), [clause for part in parts for clause in part], rng)


def _opening(voice: Voice, seen: Observation, where: str, gesture: str, rng: np.random.Generator) -> str:
    verb, doing = POSTURES[seen.posture]
    extra = "".join(f" {part}" for part in (where, gesture) if part)
    if voice == "instructing":
        return verb + extra
    if voice == "noting":
        return doing + extra
    subject = str(rng.choice(SUBJECTS))
    joint = " is " if rng.uniform() < 0.8 else " seems to be "
    return subject + joint + doing + extra


def _where(seen: Observation, rng: np.random.Generator) -> str:
    """Returns the words that complete the verb: (lying) on the back, (sitting) cross-legged, (standing) on one leg."""
    facts, legs = seen.facts, seen.legs
    if seen.posture == "lying" and facts.lying_on:
        return f"on the {facts.lying_on}" if "side" not in facts.lying_on else f"on the {facts.lying_on} of the body"
    if seen.posture == "sitting":
        straight = [leg.bend in ("straight", "slightly bent") for leg in legs]
        if seen.feet_gap < 0.02 or all(leg.direction in ("forward and out", "out") for leg in legs):
            return str(rng.choice(["cross-legged", "with crossed legs"]))
        if all(straight):
            return str(rng.choice(["with the legs stretched out", "with both legs straight in front"]))
        if all(leg.bend == "folded" for leg in legs) and not any(leg.direction == "high" for leg in legs):
            return str(rng.choice(["back on the heels", "on the heels"]))
        if not any(straight) and all(leg.direction == "forward" for leg in legs):
            return str(rng.choice(["as on a chair", "upright on a seat", "with the feet on the floor"]))
    if seen.posture == "kneeling":
        lifted = [leg.direction in ("forward", "high", "forward and out") for leg in legs]
        if lifted[0] != lifted[1]:
            return f"on the {SIDES[lifted.index(False)]} knee"
        return str(rng.choice(["on both knees", "with the knees on the ground"]))
    if seen.posture == "standing" and facts.on_one_leg:
        feet = seen.body.pair_height("foot")[0]
        return f"on the {SIDES[int(np.argmin(feet))]} {rng.choice(['leg', 'foot'])} only"
    if seen.posture == "lunging":
        return f"with the {SIDES[int(seen.stride < 0)]} foot in front"
    if seen.posture == "standing" and abs(seen.stride) > 0.45:
        return (
            str(rng.choice(["in mid stride", "as if walking"])) + f" with the {SIDES[int(seen.stride < 0)]} foot ahead"
        )
    return ""


def _gesture(seen: Observation, rng: np.random.Generator) -> tuple[str, bool]:
    """Returns a gesture of both arms, or "", and whether it describes the arms completely."""
    left, right = seen.arms
    touches, directions = {left.touches, right.touches}, {left.direction, right.direction}
    straight = all(arm.bend in ("straight", "slightly bent") for arm in seen.arms)
    if seen.arms_crossed:
        return str(rng.choice(["with folded arms", "with the arms crossed over the chest"])), True
    if touches == {"on the hip"}:
        return str(rng.choice(["with hands on hips", "with both hands at the waist"])), True
    if touches == {"behind the head"}:
        return str(
            rng.choice(["with the hands clasped behind the head", "with both hands at the back of the head"])
        ), True
    if seen.hands_meet and "overhead" not in directions:
        height = "in front of the face" if "in front of the face" in touches else "in front"
        return str(
            rng.choice(["with the hands joined", "as if clapping", "with the palms together"])
        ) + f" {height}", True
    if directions == {"out"} and straight:
        return str(rng.choice(["like the letter t", "like a scarecrow", "with both arms spread like wings"])), True
    if directions == {"up and out"} and straight:
        return str(rng.choice(["like the letter y", "cheering with both arms up and apart"])), True
    if directions == {"overhead"} and not touches - {None}:
        return str(rng.choice(["with both hands high in the air", "as if hanging from a bar"])), True
    if directions == {"down"} and straight:
        return str(rng.choice(["with the arms at the sides", "with relaxed arms", "with both arms hanging"])), True
    return "", False


def _same_arms(seen: Observation) -> bool:
    left, right = seen.arms
    if left.touches or right.touches:
        return left.touches == right.touches
    return left == right


def _arm(arm: Arm, rng: np.random.Generator) -> tuple[str, Phrase]:
    """Returns the part to name, hand or arm, and what it does."""
    if arm.touches:
        verb = {
            "on": ("resting", "rest"),
            "at": ("held", "hold"),
            "in": ("raised", "raise"),
            "be": ("hidden", "hide"),
            "ne": ("held", "hold"),
        }
        participle, imperative = verb[arm.touches[:2]]
        return "hand", Phrase(participle, imperative, arm.touches)
    table = STRETCHED if arm.bend in ("straight", "slightly bent") else BENT
    phrase = table[arm.direction][int(rng.integers(len(table[arm.direction])))]
    if arm.bend == "folded":
        phrase = Phrase(phrase.participle, phrase.verb, f"{phrase.rest}, tightly folded")
    return "arm", phrase


def _limbs(voice: Voice, limb: str, two: list[tuple[str, Phrase]], same: bool, rng: np.random.Generator) -> list[str]:
    """Returns one clause for both limbs if they do the same, else one for each, in random order."""
    if same:
        name, phrase = two[0]
        return [_clause(voice, f"both {name}s", phrase)]
    first = int(rng.integers(2))
    named = [(f"{SIDES[side]} {two[side][0]}", two[side][1]) for side in (first, 1 - first)]
    clauses = [_clause(voice, name, phrase) for name, phrase in named]
    if limb == "arm" and rng.uniform() < 0.3:
        return [", ".join(clauses[:1]) + (" while " if voice == "describing" else " and ") + clauses[1]]
    return clauses


def _clause(voice: Voice, name: str, phrase: Phrase) -> str:
    owner = OWNERS[voice]
    limb = f"both {owner} {name[5:]}" if name.startswith("both ") else f"{owner} {name}"
    if voice == "noting":
        limb = name
    if voice == "instructing":
        return f"{phrase.verb} {limb} {'hang ' if phrase.verb == 'let' else ''}{phrase.rest}"
    if voice == "noting":
        return f"{limb} {phrase.participle} {phrase.rest}"
    return f"{limb} {'are' if name.startswith('both ') else 'is'} {phrase.participle} {phrase.rest}"


def _leg(leg: Leg, rng: np.random.Generator) -> Phrase | None:
    table = LEG_STRAIGHT if leg.bend in ("straight", "slightly bent") else LEG_BENT
    if leg.direction not in table:
        return None
    choices = table[leg.direction]
    return choices[int(rng.integers(len(choices)))]


def _leg_clauses(voice: Voice, seen: Observation, where: str, rng: np.random.Generator) -> list[str]:
    upright = seen.posture in ("standing", "bending")
    calm = all(leg.direction in ("down", "slightly out", "slightly forward") for leg in seen.legs)
    if upright and calm and all(leg.bend in ("straight", "slightly bent") for leg in seen.legs):
        return [_stance(voice, seen, rng)]
    if where and seen.posture in ("sitting", "kneeling"):
        return []  # `where` already says it: cross-legged, on a chair, on both knees
    if seen.posture == "on all fours" and all(leg.bend in ("bent", "folded") for leg in seen.legs):
        return []
    left, right = seen.legs
    if left == right:
        phrase = _leg(left, rng)
        return [_clause(voice, "both legs", phrase)] if phrase else []
    clauses = []
    for side, leg in zip(SIDES, seen.legs, strict=True):
        if phrase := _leg(leg, rng):
            clauses.append(_clause(voice, f"{side} leg", phrase))
    return clauses


def _stance(voice: Voice, seen: Observation, rng: np.random.Generator) -> str:
    gap = seen.feet_gap
    if gap < 0:
        how = str(rng.choice(["crossed", "crossing"]))
        noun, phrase = "legs", Phrase(how, "cross", "at the ankles")
        return (
            f"cross {OWNERS[voice]} legs at the ankles"
            if voice == "instructing"
            else _clause(voice, f"both {noun}", phrase)
        )
    if gap < 0.27:
        return "keep your feet together" if voice == "instructing" else "the feet are together"
    if gap < 0.62:
        return "set your feet hip-width apart" if voice == "instructing" else "the feet are hip-width apart"
    width = "wide" if gap < 1.0 else "very wide"
    return f"spread your legs {width}" if voice == "instructing" else f"the legs are spread {width}"


def _trunk(voice: Voice, seen: Observation, rng: np.random.Generator) -> list[str]:
    clauses = []
    lean = seen.facts.lean
    if lean and lean != "upright" and seen.posture not in ("bending", "lying", "on all fours", "upside down"):
        word = {"forward": "forward", "backward": "back", "left": "to the left", "right": "to the right"}[lean]
        amount = "far " if seen.facts.torso_tilt > 45 else ("slightly " if seen.facts.torso_tilt < 24 else "")
        clauses.append(
            f"lean {amount}{word}" if voice == "instructing" else f"the {_trunk_word(rng)} leans {amount}{word}"
        )
    if abs(seen.twist) > 20:
        side = SIDES[int(seen.twist < 0)]
        clauses.append(
            f"turn your chest to the {side}"
            if voice == "instructing"
            else f"the {_trunk_word(rng)} twists to the {side}"
        )
    if abs(seen.side_bend) > 18 and lean not in ("left", "right"):
        side = SIDES[int(seen.side_bend < 0)]
        clauses.append(f"bend sideways to the {side}" if voice == "instructing" else f"the waist bends to the {side}")
    return clauses


def _trunk_word(rng: np.random.Generator) -> str:
    return str(rng.choice(["upper body", "torso", "chest"]))


def _head(voice: Voice, seen: Observation, rng: np.random.Generator) -> list[str]:
    words = []
    if abs(seen.head_turn) > 22:
        words.append(f"to the {SIDES[int(seen.head_turn < 0)]}")
    if seen.head_pitch > 16:
        words.append("up")
    elif seen.head_pitch < -18:
        words.append("down")
    if words:
        where = " and ".join(words)
        return [
            f"look {where}"
            if voice == "instructing"
            else f"{rng.choice(['the eyes look', 'the head faces', 'the gaze goes'])} {where}"
        ]
    if abs(seen.head_tilt) > 16:
        side = SIDES[int(seen.head_tilt < 0)]
        return [f"tilt your head to the {side}" if voice == "instructing" else f"the head is cocked to the {side}"]
    return []


def _join(voice: Voice, opening: str, clauses: list[str], rng: np.random.Generator) -> str:
    """Joins clauses to sentences of one to three clauses, with capitals and full stops, or to one run-on note."""
    if voice == "noting":
        return ", ".join([opening, *clauses]).capitalize() + "."
    sentences = [opening]
    i = 0
    if clauses and voice == "describing" and rng.uniform() < 0.3:
        sentences[0] += " and " + clauses[0]
        i = 1
    while i < len(clauses):
        take = int(rng.integers(1, 4))
        group = clauses[i : i + take]
        sentences.append(group[0] if len(group) == 1 else ", ".join(group[:-1]) + " and " + group[-1])
        i += take
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
