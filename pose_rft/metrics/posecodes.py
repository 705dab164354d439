"""A semantic metric without training: do a pose's own posecodes agree with the facts that a caption states?

A fact is a posecode without its rarity: part, kind, category. Recall is the share of the stated facts that hold in the
pose. Precision ignores places that the caption does not mention, since anything may hold there: among the pose's facts
in a mentioned place (the bend of the left elbow, the lean of the torso), it is the share that the caption states. A
caption that says where a limb points also says what it touches (both grammars do), so an unstated contact counts
against precision.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pose_rft.captions.posecodes import Posecode

KINDS = ("posture", "direction", "bend", "contact", "trunk", "relation")
SEGMENTS = ("upper_arm", "forearm", "thigh", "shin")
CONTACTS = ("touch", "near")
CONTACT = "contact"


class Agreement(NamedTuple):
    """Shares (0..1), None where there are no facts to compare; facts: the number stated."""

    precision: float | None
    recall: float | None
    facts: int


def kind_of(code: Posecode) -> str:
    """One of `KINDS`: trunk is lean, twist and head; relation is gaps, steps and heights of hands, feet and knees."""
    if code.kind in SEGMENTS:
        return "direction"
    if code.kind in CONTACTS:
        return CONTACT
    if code.part in ("torso", "head"):
        return "trunk"
    return code.kind if code.kind in ("posture", "bend") else "relation"


def place_of(code: Posecode) -> tuple[str, str]:
    """The place that a fact describes: its part, and its kind without the degree."""
    return code.part, CONTACT if code.kind in CONTACTS else code.kind.split(" ")[0]


def agreement(shown: Sequence[Iterable[Posecode]], stated: Sequence[Iterable[Posecode]]) -> dict[str, Agreement]:
    """{`all` and each of `KINDS`: agreement}, pooled over the facts of all captions.

    Args:
        shown: all posecodes of each pose. stated: those that its caption states.
    Raises:
        ValueError: the numbers of poses and captions differ.
    """
    hits, said, seen = Counter[str](), Counter[str](), Counter[str]()
    for own, told in zip(shown, stated, strict=True):
        wanted = {code[:3] for code in told}
        spoken = {place_of(code) for code in told}
        spoken |= {(code.part, CONTACT) for code in told if code.kind in SEGMENTS}
        said.update(kind_of(code) for code in {code[:3]: code for code in told}.values())
        for code in own:
            seen[kind_of(code)] += place_of(code) in spoken
            hits[kind_of(code)] += code[:3] in wanted
    return {
        name: Agreement(_share(hits, seen, kinds), _share(hits, said, kinds), sum(said[kind] for kind in kinds))
        for name, kinds in (("all", KINDS), *((kind, (kind,)) for kind in KINDS))
    }


def _share(hits: Counter[str], of: Counter[str], kinds: Sequence[str]) -> float | None:
    total = sum(of[kind] for kind in kinds)
    return sum(hits[kind] for kind in kinds) / total if total else None
