import re
from pathlib import Path

import numpy as np
import pytest

from pose_rft.body.joints import SMPL24
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.captions.describe import describe_pose
from pose_rft.captions.mirror import mirror_caption
from pose_rft.sample.human_captions import human_captions
from pose_rft.sample.key_poses import KEY_POSES, key_rotations, sample_pose
from pose_rft.sample.pose_attributes import Observation

TO_AMASS = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


@pytest.fixture(scope="module")
def rest(standin_folder: Path) -> np.ndarray:
    return NumpyBody(standin_folder).rest_joints()


def amass(rotations: np.ndarray) -> np.ndarray:
    rotations = rotations.copy()
    rotations[0] = TO_AMASS @ rotations[0]
    return rotations


def key_pose(name: str) -> np.ndarray:
    return amass(key_rotations(KEY_POSES[name]))


def all_words(name: str, rest: np.ndarray) -> str:
    return " ".join(human_captions(key_pose(name), rest, np.random.default_rng(0), 12)).lower()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("arms crossed", "folded arms|arms crossed"),
        ("hands on hips", "hands on hips|hands at the waist"),
        ("hands behind head", "behind the head|back of the head"),
        ("t pose", "letter t|scarecrow|wings"),
        ("point forward", "left arm.*(straight ahead|forward)"),
        ("one leg", "right (leg|foot) only"),
        ("sit", "sit.*(chair|seat|floor)"),
        ("cross-legged", "cross-legged|crossed legs"),
        ("kneel on one", "kneel.* on the right knee"),
        ("lie on back", "(lie|lying) on the back"),
        ("all fours", "all fours|hands and knees"),
        ("reach up", "left arm.*(up|overhead|ceiling)"),
    ],
)
def test_gestures_are_named(name: str, words: str, rest: np.ndarray) -> None:
    assert re.search(words, all_words(name, rest))


def test_captions_depend_on_the_generator_alone(rest: np.ndarray) -> None:
    pose = amass(sample_pose(np.random.default_rng(3)))
    first, second = (human_captions(pose, rest, np.random.default_rng(4), 5) for _ in range(2))
    assert first == second and len(set(first)) > 1


def test_the_mirrored_pose_is_observed_with_sides_swapped(rest: np.ndarray) -> None:
    symmetric = (rest + rest[list(SMPL24.flip)] * (-1, 1, 1)) / 2
    sign = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]])
    for seed in range(20):
        pose = amass(sample_pose(np.random.default_rng(seed)))
        plain = Observation(pose, symmetric)
        mirrored = Observation(pose[list(SMPL24.flip)] * sign, symmetric)
        assert mirrored.posture == plain.posture
        assert mirrored.legs == plain.legs[::-1]
        for arm, other in zip(mirrored.arms, plain.arms[::-1], strict=True):
            assert (arm.direction, arm.bend) == (other.direction, other.bend)
            assert arm.touches == (mirror_caption(other.touches) if other.touches else None)
        assert mirrored.stride == pytest.approx(-plain.stride, abs=1e-6)
        assert mirrored.head_turn == pytest.approx(-plain.head_turn, abs=1e-6)


def test_poses_are_told_apart(rest: np.ndarray) -> None:
    """A retrieval model can find a pose among hundreds only if their observations differ."""
    seen = {
        (o.posture, o.arms, o.legs)
        for seed in range(150)
        for o in [Observation(amass(sample_pose(np.random.default_rng(seed))), rest)]
    }
    assert len(seen) > 135


def test_the_grammar_is_not_that_of_the_automatic_captions(rest: np.ndarray) -> None:
    """Hardly a run of three words is shared, beyond what names a body part or a side."""

    def runs(texts: list[str]) -> set[tuple[str, ...]]:
        words = [re.findall(r"\w+", text.lower()) for text in texts]
        return {tuple(line[i : i + 4]) for line in words for i in range(len(line) - 3)}

    human, automatic = [], []
    for seed in range(60):
        pose, own = amass(sample_pose(np.random.default_rng(seed))), np.random.default_rng(seed)
        human += human_captions(pose, rest, own)
        automatic += describe_pose(pose, rest, own, 1)
    assert len(runs(human) & runs(automatic)) < 0.05 * len(runs(human))


def test_sentences_are_whole(rest: np.ndarray) -> None:
    for seed in range(60):
        own = np.random.default_rng(seed)
        (text,) = human_captions(amass(sample_pose(own)), rest, own)
        assert text[0].isupper() and text.endswith(".") and "  " not in text and " ." not in text and " ," not in text
        assert 3 <= len(text.split()) < 80
