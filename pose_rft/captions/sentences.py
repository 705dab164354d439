"""Posecodes → sentences: group the facts into clauses, keep the unusual ones that fit, word and order them at random.

A clause covers one topic: a limb with its direction, bend and hand, or a relation between the feet. Clauses of the two
sides merge if they say the same ("both arms …"). The posture always comes first; other clauses are added by rarity
until the word budget is used up, so what is left out is close to what the posture implies.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pose_rft.captions import wording
from pose_rft.captions.draws import Draws
from pose_rft.captions.geometry import SIDES
from pose_rft.captions.posecodes import Posecode

WORDS = (40, 54)  # the budget of a caption is drawn from this range
RARITY_NOISE = 0.25  # spread of the factor on each clause's rarity: captions of one pose differ in what they tell


class Clause(NamedTuple):
    """A clause stating `codes`. `text` is a main clause or, if `participle`, follows the opener ("leaning forward")."""

    group: str
    text: str
    rarity: float
    codes: tuple[Posecode, ...]
    participle: bool = False


class Told(NamedTuple):
    """A caption and the facts that it states."""

    text: str
    codes: tuple[Posecode, ...]


def caption(codes: Sequence[Posecode], rng: Draws) -> str:
    """One caption of one pose, see `told`."""
    return told(codes, rng).text


def told(codes: Sequence[Posecode], rng: Draws) -> Told:
    """One caption of one pose, and which of the pose's facts it states.

    Args:
        codes: the facts of the pose, from `posecodes`.
        rng: draws the wording, the order and, within limits, the choice of facts.
    """
    facts: dict[str, dict[str, Posecode]] = {}
    for code in codes:
        facts.setdefault(code.part, {})[code.kind] = code
    opener = _opener(facts, rng)
    clauses = [
        *_trunk(facts, rng),
        *_limb_pair("arm", facts, rng),
        *_limb_pair("leg", facts, rng),
        *_relations(facts, rng),
    ]
    kept = _select(opener, clauses, rng)
    stated = (facts["body"]["posture"], *(code for clause in kept for code in clause.codes))
    return Told(_compose(opener, kept, rng), stated)


def _opener(facts: Mapping[str, Mapping[str, Posecode]], rng: Draws) -> str:
    subject = _pick(wording.SUBJECTS, rng)
    plural = subject in wording.PLURAL_SUBJECTS
    verb = _pick(wording.POSTURE[facts["body"]["posture"].value], rng)
    endings = {"be": "are" if plural else "is", "s": "" if plural else "s", "es": "" if plural else "es"}
    return f"{subject} {verb.format(**endings)}"


def _trunk(facts: Mapping[str, Mapping[str, Posecode]], rng: Draws) -> list[Clause]:
    """Lean, twist and head: participles that follow the opener."""
    clauses = []
    for kind, code in facts.get("torso", {}).items():
        name, degree = kind.rsplit(" ", 1)
        phrases = wording.TWIST if name == "twist" else wording.LEAN[code.value]
        clauses.append(
            Clause("torso", _degree(phrases, degree, rng, side=code.value), code.rarity + 0.1, (code,), True)
        )
    for kind, code in facts.get("head", {}).items():
        name, degree = kind.rsplit(" ", 1)
        text = _degree(wording.HEAD[f"{name} {code.value}"], degree, rng)
        clauses.append(Clause("head", text, code.rarity, (code,), True))
    return clauses


def _limb_pair(limb: str, facts: Mapping[str, Mapping[str, Posecode]], rng: Draws) -> list[Clause]:
    """Returns one clause for both arms (or legs) if they do the same, else one for each."""
    left, right = (facts.get(f"{side}_{limb}", {}) for side in SIDES)
    first, second = ("upper_arm", "forearm") if limb == "arm" else ("thigh", "shin")
    same = all(left[kind].value == right[kind].value for kind in (first, "bend")) and (
        left["bend"].value in ("straight", "slightly bent") or left[second].value == right[second].value
    )
    tells = [{kind: own[kind] for kind in ("touch", "near") if kind in own} for own in (left, right)]
    if same and not any(tells):
        text, kinds = _limb(limb, "", left, rng)
        codes = [own[kind] for own in (left, right) for kind in kinds if kind in own]
        stated = tuple(
            code for code in codes if code.value == left[code.kind].value
        )  # of heights only the left's is told
        return [Clause(limb, text, _rarity(left), stated)]
    clauses = []
    for side, own in zip(SIDES, (left, right), strict=True):
        text, kinds = _limb(limb, side, own, rng)
        clauses.append(Clause(limb, text, _rarity(own), tuple(own[kind] for kind in kinds)))
    return clauses


def _limb(limb: str, side: str, own: Mapping[str, Posecode], rng: Draws) -> tuple[str, tuple[str, ...]]:
    """Words a limb's direction, bend and end; returns the text and the kinds of facts it states. No side means both.

    A nearly straight limb is described as one line, a bent one by both segments; the lower segment may be left out if
    the position of the hand or foot is stated.
    """
    both = not side
    name = f"both {limb}s" if both else f"the {side} {limb}"
    first, second, hinge, end, cells, bends = (
        ("upper_arm", "forearm", "elbow", "hand", wording.ARM_CELL, wording.ELBOW)
        if limb == "arm"
        else ("thigh", "shin", "knee", "foot", wording.LEG_CELL, wording.KNEE)
    )
    bend = own["bend"].value
    place, kinds = _place(end, own, rng)
    direction = _direction(own[first].value, cells, rng)
    if bend in ("straight", "slightly bent"):
        verb = _pick(("points", "reaches", "is held") if limb == "arm" else ("points", "reaches", "goes"), rng)
        if own[first].value == "down":
            verb = "hangs" if limb == "arm" else "goes"
        repeats = bend == "straight" and "straight" in direction
        manner = _pick(bends[bend][1:] if repeats else bends[bend], rng)
        line = f"{name} {_plural(verb) if both else verb} {direction}"
        ends = f"the {hinge}{'s' if both else ''} {manner}"
        said = f"{line}, {ends}" if bend == "slightly bent" or rng.random() < 0.5 else f"{line}, {manner}"
        return f"{said}, {place}" if place else said, (first, "bend", *kinds)
    segment = first.replace("_", " ")
    upper = f"both {segment}s point" if both else f"the {side} {segment} points"
    bent = f"the {hinge}{'s' if both else ''} {_pick(bends[bend], rng)}"
    if place and rng.random() < 0.6:
        return f"{upper} {direction}, {bent}, {place}", (first, "bend", *kinds)
    lower = f"the {second}{'s' if both else ''} {_direction(own[second].value, cells, rng)}"
    return ", ".join(filter(None, (f"{upper} {direction}", bent, lower, place))), (first, "bend", second, *kinds)


def _place(end: str, own: Mapping[str, Posecode], rng: Draws) -> tuple[str, tuple[str, ...]]:
    """Words a hand or foot that touches something or is at a notable height ("" otherwise), with the fact's kind."""
    for kind, phrases in (("touch", wording.TOUCH), ("near", wording.NEAR)):
        if kind in own:
            return f"the {end} {_pick(phrases, rng).format(place='the ' + own[kind].value)}", (kind,)
    if "height" in own and own["height"].rarity > 0.3 and rng.random() < 0.6:
        return f"the {end} {_pick(wording.HAND_LEVEL[own['height'].value], rng)}", ("height",)
    return "", ()


def _relations(facts: Mapping[str, Mapping[str, Posecode]], rng: Draws) -> list[Clause]:
    """Clauses about relations between the hands, the feet and the knees."""
    clauses = []
    for part, table in (("hands", wording.HANDS), ("feet", wording.FEET), ("knees", wording.KNEES)):
        for kind, code in facts.get(part, {}).items():
            sided = code.value in SIDES
            other = SIDES[1 - SIDES.index(code.value)] if sided else ""
            phrase = _pick(table[kind if sided else f"{kind} {code.value}"], rng)
            group = "arm" if part == "hands" else "leg"
            clauses.append(Clause(group, phrase.format(side=code.value, other=other), code.rarity * 0.9, (code,)))
    return clauses


def _select(opener: str, clauses: Sequence[Clause], rng: Draws) -> list[Clause]:
    """The clauses with the highest (jittered) rarity that fit the word budget, at least one."""
    budget = WORDS[0] + rng.below(WORDS[1] + 1 - WORDS[0]) - len(opener.split())
    scores = [clause.rarity * (1 + RARITY_NOISE * (2 * rng.random() - 1)) for clause in clauses]
    kept: list[int] = []
    for i in sorted(range(len(clauses)), key=lambda i: -scores[i]):
        length = len(clauses[i].text.split())
        if length <= budget or not kept:
            kept.append(i)
            budget -= length
    return [clauses[i] for i in sorted(kept)]


def _compose(opener: str, clauses: Sequence[Clause], rng: Draws) -> str:
    """Opener with its participles, then the groups in random order, one or two clauses to a sentence."""
    trunk = [clause.text for clause in clauses if clause.participle]
    rng.shuffle(trunk)
    # "…, the chest turned left, looking up": a participle with its own noun may take "with" after the opener.
    attached = [f"with {text}" if text.startswith("the ") and rng.random() < 0.5 else text for text in trunk]
    sentences = [", ".join([opener, *attached])]
    groups = [group for group in ("arm", "leg") if any(clause.group == group for clause in clauses)]
    rng.shuffle(groups)
    for group in groups:
        texts = [clause.text for clause in clauses if clause.group == group and not clause.participle]
        rng.shuffle(texts)
        while texts:
            count = 2 if rng.random() < 0.7 else 1
            sentences.append(_pick(("; ", ", while ", ", and "), rng).join(texts[:count]))
            texts = texts[count:]
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in sentences)


def _direction(cell: str, cells: Mapping[str, wording.Phrases], rng: Draws) -> str:
    if cell in cells:
        return _pick(cells[cell], rng)
    *most, last = (_pick(wording.AXIS[axis], rng) for axis in cell.split())
    return f"{', '.join(most)} and {last}" if most else last


def _degree(phrases: wording.Phrases, degree: str, rng: Draws, side: str = "") -> str:
    text = _pick(phrases, rng).format(degree=_pick(wording.DEGREE[degree], rng), side=side)
    return " ".join(text.split())


def _rarity(own: Mapping[str, Posecode]) -> float:
    return max(code.rarity for code in own.values())


def _plural(verb: str) -> str:
    return "are" + verb.removeprefix("is") if verb.startswith("is ") else verb.removesuffix("s").replace("goe", "go")


def _pick(phrases: wording.Phrases, rng: Draws) -> str:
    return phrases[rng.below(len(phrases))]
