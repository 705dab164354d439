"""The judge without training: facts of a pose against those that a caption states."""

import pytest

from pose_rft.captions.posecodes import Posecode
from pose_rft.metrics.posecodes import KINDS, agreement, kind_of


def facts(*rows: str) -> list[Posecode]:
    return [Posecode(*row.split("|"), rarity=0.5) for row in rows]


STATED = facts("body|posture|sitting", "left_arm|upper_arm|up", "left_arm|bend|square", "torso|lean slight|forward")


def test_the_pose_that_the_caption_was_written_from_agrees_in_everything():
    more = facts("right_arm|bend|folded", "feet|gap|wide")
    found = agreement([STATED + more], [STATED])
    assert found["all"].precision == found["all"].recall == 1.0 and found["all"].facts == 4
    assert found["contact"] == (None, None, 0)


def test_a_wrong_category_costs_both_and_a_missing_fact_only_recall():
    shown = facts("body|posture|standing", "left_arm|upper_arm|up", "left_arm|bend|square")
    found = agreement([shown], [STATED])
    assert found["all"].precision == pytest.approx(2 / 3) and found["all"].recall == pytest.approx(2 / 4)
    assert found["posture"] == (0.0, 0.0, 1) and found["bend"] == (1.0, 1.0, 1)
    assert found["trunk"] == (None, 0.0, 1)
    leans_more = facts("torso|lean strong|forward")
    assert agreement([leans_more], [facts("torso|lean slight|forward")])["trunk"] == (0.0, 0.0, 1), "one place"


def test_a_contact_that_a_told_limb_does_not_have_costs_precision():
    shown = facts("left_arm|upper_arm|up", "left_arm|bend|square", "left_arm|touch|face", "right_arm|touch|face")
    stated = facts("left_arm|upper_arm|up", "left_arm|bend|square")
    assert agreement([shown], [stated])["contact"] == (0.0, None, 0)
    near = facts("left_arm|near|face")
    assert agreement([near], [facts("left_arm|touch|face")])["contact"] == (0.0, 0.0, 1)


def test_captions_count_together_by_their_facts():
    shown = [facts("body|posture|sitting"), facts("body|posture|standing", "left_leg|bend|folded")]
    stated = [facts("body|posture|sitting"), facts("body|posture|sitting", "left_leg|bend|folded")]
    assert agreement(shown, stated)["all"].recall == pytest.approx(2 / 3)
    with pytest.raises(ValueError):
        agreement(shown, stated[:1])


def test_facts_have_kinds():
    assert {kind_of(code) for code in STATED} == {"posture", "direction", "bend", "trunk"}
    assert {kind_of(code) for code in facts("hands|gap|close", "left_arm|height|head level")} == {"relation"}
    assert set(map(kind_of, STATED)) <= set(KINDS)
