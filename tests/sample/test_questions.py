from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pose_rft.body.joints import SMPL24
from pose_rft.sample.key_poses import KEY_POSES, key_rotations
from pose_rft.sample.people import Studio, fixed_view
from pose_rft.sample.questions import Facts, ask, facts_of
from pose_rft.sample.scene import PALETTE


@pytest.fixture(scope="module")
def studio(standin_folder: Path) -> Studio:
    return Studio(standin_folder)


def facts(studio: Studio, pose: str, seed: int = 0, grayscale: bool = False, people: int = 1) -> Facts:
    rng = np.random.default_rng(seed)
    identities = [studio.identity(rng) for _ in range(people)]
    places = [(0.0, 0.0), (0.9, 0.0)]
    crowd = [studio.place(who, key_rotations(KEY_POSES[pose]), at) for who, at in zip(identities, places, strict=False)]
    shot = studio.shoot(rng, crowd, fixed_view((128, 128), 0, 5, 5.0, tall=2.6))
    return facts_of(shot, studio, grayscale)


def dialogue(found: Facts, seeds: int = 40) -> dict[str, set[str]]:
    answers: dict[str, set[str]] = {}
    for seed in range(seeds):
        for question, answer in ask(found, np.random.default_rng(seed), 99):
            answers.setdefault(question, set()).add(answer)
    return answers


def test_one_question_has_one_answer(studio: Studio) -> None:
    found = facts(studio, "wave")
    for question, answers in dialogue(found).items():
        assert len(answers) == 1 or question.startswith("How many"), question


@pytest.mark.parametrize(
    ("pose", "question", "answer"),
    [
        ("reach up", "Which arm is raised above the head?", "The left arm is raised."),
        ("hands up", "Is an arm raised over the head?", "Yes, both hands are above the head."),
        ("stand", "Which arm is raised above the head?", "Neither arm is raised above the head."),
        ("t pose", "Is the left arm stretched out to the side?", "Yes, the left arm points to the side."),
        ("sit", "Is the person standing, sitting or lying down?", "The person is sitting."),
        ("lie on back", "What is the person doing?", "The person is lying down."),
        ("stand", "Is the right knee bent?", "No, the right leg is straight."),
        ("sit", "Is the left knee bent?", "Yes, the left knee is bent."),
        ("one leg", "Are both feet on the ground?", "No, one foot is in the air."),
    ],
)
def test_answers_about_the_pose_are_true(studio: Studio, pose: str, question: str, answer: str) -> None:
    found = facts(studio, pose)
    everything = replace(found, people=(replace(found.people[0], visible=frozenset(SMPL24.joints)),))
    assert dialogue(everything)[question] == {answer}


def test_colours_are_those_of_the_scene(studio: Studio) -> None:
    for seed in range(3):
        found = facts(studio, "a pose", seed)
        answers, worn = dialogue(found), found.people[0].outfit
        assert answers["What color is the shirt?"] == {f"The shirt is {worn.top}."}
        assert answers[f"What color are the {worn.legs}?"] == {f"The {worn.legs} are {worn.bottom}."}
        assert answers["What color is the floor?"] == {f"The floor is {found.room.floor}."}
        assert answers["What color is the wall?"] == {f"The wall is {found.room.wall}."}
        assert worn.top in answers["What is the person wearing?"].pop()


def test_a_grayscale_picture_is_not_asked_for_colours(studio: Studio) -> None:
    found = dialogue(facts(studio, "a pose", grayscale=True))
    words = " ".join(text for question, answers in found.items() for text in (question, *answers))
    assert not any(colour in words.split() for colour in PALETTE) and "color" not in words


def test_two_people_are_counted_and_none_of_them_is_the_person(studio: Studio) -> None:
    answers = dialogue(facts(studio, "stand", people=2))
    assert answers["Is there more than one person in the image?"] == {"Yes, there are two people."}
    assert not any("the person" in question for question in answers)


def test_what_is_hidden_is_not_asked(studio: Studio) -> None:
    found = facts(studio, "a pose")
    hidden = replace(found, people=(replace(found.people[0], visible=frozenset()),))
    questions = " ".join(dialogue(hidden))
    assert "shoes" not in questions and "arm" not in questions and "hair" not in questions and "floor" in questions


def test_the_number_of_turns_is_kept_and_questions_differ(studio: Studio) -> None:
    found = facts(studio, "guard")
    for turns in (1, 2, 3):
        pairs = ask(found, np.random.default_rng(turns), turns)
        assert len({question for question, _ in pairs}) == turns
