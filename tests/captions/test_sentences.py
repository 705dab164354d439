import re

import numpy as np
import pytest

from pose_rft.captions.describe import describe_pose, describe_poses
from pose_rft.captions.mirror import mirror_caption
from tests.support.skeleton import REST_JOINTS, pose, random_poses


def captions_of(n=30, **degrees):
    return describe_pose(pose(**degrees), REST_JOINTS, np.random.default_rng(0), n=n)


def test_a_t_pose_has_both_arms_out_to_the_sides():
    for text in captions_of():
        assert re.search(r"[Bb]oth arms [^.]*(out to the side|sideways)", text), text
        assert re.search(r"\b(stand|feet)", text), text


def test_raised_and_hanging_arms_are_not_confused():
    for text in captions_of(left_shoulder=(0, 0, 85), right_shoulder=(0, 0, 80)):
        raised = re.search(r"[Tt]he left arm ([^,;.]*)", text)
        assert raised and re.search(r"up|overhead", raised[1]), text
        assert not re.search(r"right arm [^,;.]*(up|overhead)", text), text


def test_someone_seated_is_said_to_sit():
    knees = {"left_knee": (85, 0, 0), "right_knee": (85, 0, 0), "left_hip": (-85, 0, 5), "right_hip": (-85, 0, -5)}
    for text in captions_of(**knees):
        assert re.search(r"\b(sit|sits|sitting|seated)\b", text), text


def test_captions_keep_to_their_length():
    rngs = [np.random.default_rng(i) for i in range(300)]
    texts = [text for own in describe_poses(random_poses(300), REST_JOINTS, rngs, n=2) for text in own]
    words = np.array([len(text.split()) for text in texts])
    assert words.max() <= 60 and 35 <= words.mean() <= 55


def test_captions_are_whole_sentences():
    rngs = [np.random.default_rng(i) for i in range(200)]
    for own in describe_poses(random_poses(200, seed=2), REST_JOINTS, rngs, n=2):
        for text in own:
            assert re.fullmatch(r"([A-Z][^.{}]*\. )*[A-Z][^.{}]*\.", text), text
            assert "  " not in text and " ," not in text and ",," not in text, text


def test_captions_of_one_pose_vary_and_the_same_generator_repeats_them():
    texts = captions_of(n=10, left_shoulder=(0, 30, 40), right_elbow=(0, 60, 0))
    assert len(set(texts)) >= 8
    assert texts == captions_of(n=10, left_shoulder=(0, 30, 40), right_elbow=(0, 60, 0))


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("The left arm is up, his RIGHT leg down.", "The right arm is up, his LEFT leg down."),
        ("Left hand on the right hip.", "Right hand on the left hip."),
        ("The right elbow is bent at a right angle.", "The left elbow is bent at a right angle."),
        ("The arm is right above the head, the left below it.", "The arm is right above the head, the right below it."),
        ("An upright stance, leftover words, brightly.", "An upright stance, leftover words, brightly."),
        ("Arms at three o'clock, right leg back.", "Arms at three o'clock, right leg back."),
    ],
)
def test_mirror_swaps_sides_and_nothing_else(text, mirrored):
    assert mirror_caption(text) == mirrored


def test_mirroring_a_caption_twice_gives_it_back():
    for text in [*captions_of(left_elbow=(0, -90, 0)), "Their left in front, a left angle, right away the LEFT."]:
        assert mirror_caption(mirror_caption(text)) == text


def test_the_wording_of_a_pose_stays():
    """Captions are part of converted data: a change here means converting again."""
    rotations = pose(left_shoulder=(0, 30, 40), right_elbow=(0, 60, 0))
    assert describe_pose(rotations, REST_JOINTS, np.random.default_rng(0), n=2) == [
        "They stand. The left arm points up, out to the side and backward, fully extended, the hand above the head, "
        "while the right upper arm points sideways like a T, the elbow loosely bent, the forearm forward and out to "
        "the side.",
        "The person is standing. The right upper arm points sideways like a T, the elbow loosely bent, the forearm "
        "diagonally forward and outward; the left hand is higher than the right. The left arm points up, sideways and "
        "behind, the elbow fully extended; the hands are spread wide.",
    ]


@pytest.mark.parametrize("together", [1, 7, 64])
def test_captions_do_not_depend_on_how_many_poses_are_described_together(together):
    poses = random_poses(128, seed=5)
    alone = [describe_pose(one, REST_JOINTS, np.random.default_rng(i), n=3) for i, one in enumerate(poses)]
    found = []
    for start in range(0, len(poses), together):
        part = poses[start : start + together]
        found += describe_poses(part, REST_JOINTS, [np.random.default_rng(start + i) for i in range(len(part))], n=3)
    assert found == alone
