"""Swaps left and right in a text, for the left-right mirrored pose."""

import re

_SIDE = re.compile(r"(?P<article>\b(?:the|his|her|its|their)\s+)?\b(?P<side>left|right)\b", re.IGNORECASE)
# If these follow, the word is not a side of the body: "a right angle" or, without an article, "right above the head".
_ANGLE = re.compile(r"[ -]angle", re.IGNORECASE)
_ADVERB = re.compile(
    r"\s(?:above|below|behind|beside|beneath|under|before|after|next to|in front|away|now)\b", re.IGNORECASE
)
# Swapping words does not mirror clock hours and axes, so such captions are left unchanged (as in PoseScript).
_UNSWAPPABLE = re.compile(r"\bclock\b|o'clock|\bx-axis\b", re.IGNORECASE)


def can_mirror(text: str) -> bool:
    """Whether swapping words gives the caption of the mirrored pose."""
    return not _UNSWAPPABLE.search(text)


def mirror_caption(text: str) -> str:
    """Swaps left and right in `text`, keeping case; unchanged if `can_mirror` is False. Twice is the identity."""
    return _SIDE.sub(_other_side, text) if can_mirror(text) else text


def _other_side(match: re.Match[str]) -> str:
    rest = match.string[match.end() :]
    if _ANGLE.match(rest) or (not match["article"] and _ADVERB.match(rest)):
        return match[0]
    word = match["side"]
    other = "right" if word.lower() == "left" else "left"
    cased = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
    return (match["article"] or "") + cased
