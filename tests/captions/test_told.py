"""Captions that say which facts they state, in two grammars, one of which no training has."""

import re

import numpy as np
import pytest

from pose_rft.captions import unheard, wording
from pose_rft.captions.describe import describe_poses
from pose_rft.captions.draws import Draws
from pose_rft.captions.geometry import pose_bodies
from pose_rft.captions.posecodes import posecodes
from pose_rft.captions.sentences import caption, told
from pose_rft.captions.unheard import told_unheard
from pose_rft.sample.human_captions import human_captions
from tests.support.skeleton import REST_JOINTS, random_poses

POSES = random_poses(300, seed=5)
CODES = posecodes(pose_bodies(POSES, REST_JOINTS))


def all_told(write):
    found = []
    for i, codes in enumerate(CODES):
        with Draws(np.random.default_rng(i)) as draws:
            found.append(write(codes, draws))
    return found


@pytest.mark.parametrize("write", [told, told_unheard])
def test_what_is_stated_is_true_and_stated_once(write):
    for own, (_, stated) in zip(CODES, all_told(write), strict=True):
        assert set(stated) <= set(own) and len(set(stated)) == len(stated)
        assert stated[0].kind == "posture" and len(stated) >= 4


def test_the_text_with_its_facts_is_the_caption_itself():
    assert [one.text for one in all_told(told)] == all_told(caption)


def test_a_stated_bend_and_contact_are_in_the_words():
    bends = {value: {*wording.ELBOW[value], *wording.KNEE[value]} for value in wording.ELBOW}
    for text, stated in all_told(told):
        for code in stated:
            if code.kind == "bend":
                assert any(phrase in text for phrase in bends[code.value]) or "straight" in text, (code, text)
            if code.kind in ("touch", "near"):
                assert f"the {code.value}" in text, (code, text)
            if code.kind == "posture":
                first = text.split(".")[0].casefold()
                words = [re.sub(r"{\w+}", "", phrase).split()[0] for phrase in wording.POSTURE[code.value]]
                assert any(word in first for word in words), (code, text)


def test_a_limb_whose_words_tell_no_contact_has_none():
    """On which precision relies: silence about a contact of a told limb denies it."""
    for write in (told, told_unheard):
        for own, (_, stated) in zip(CODES, all_told(write), strict=True):
            limbs = {code.part for code in stated if code.kind in ("upper_arm", "thigh")}
            touching = {code for code in own if code.part in limbs and code.kind in ("touch", "near")}
            assert touching <= set(stated)


def sequences(texts, length):
    for text in texts:
        for sentence in text.split("."):
            words = re.findall(r"[a-z']+", sentence.casefold())
            yield from (tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def test_the_unheard_grammar_shares_no_four_words_in_a_row_with_what_training_reads():
    rngs = [np.random.default_rng(1000 + i) for i in range(len(POSES))]
    read = [text for own in describe_poses(POSES, REST_JOINTS, rngs, n=3) for text in own]
    read += [text for i, pose in enumerate(POSES) for text in human_captions(pose, REST_JOINTS, rngs[i], 2)]
    heard = [one.text for one in all_told(told_unheard)]
    shared = set(sequences(heard, 4)) & set(sequences(read, 4))
    assert not shared, shared
    assert all(":" in text for text in heard) and not any(":" in text for text in read)


def test_the_unheard_grammar_has_words_for_every_fact_and_whole_lines():
    for one in all_told(told_unheard):
        assert re.fullmatch(r"([A-Z][^.{}:]*: [^.{}:]+\. )*[A-Z][^.{}:]*: [^.{}:]+\.", one.text), one.text
        assert "  " not in one.text and len(one.text.split()) <= 90
    assert set(unheard.POSTURE) == set(wording.POSTURE) and set(unheard.BEND) == set(wording.ELBOW)
    assert set(unheard.AXIS) == set(wording.AXIS)
    tables = (("hands", wording.HANDS), ("feet", wording.FEET), ("knees", wording.KNEES))
    assert set(unheard.RELATION) == {f"{part} {kind}" for part, table in tables for kind in table}
