"""Questions about an image with correct answers, as dialogues of one or more turns.

Answers come from what was rendered (clothes, room, number of people) and from pose facts that no careful viewer would
dispute (`pose_rft.captions.predicates`); ambiguous cases are never asked about. There are no questions about colours
in grayscale images, none about "the person" in images of several people, and none about the number of people if
somebody is barely visible.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pose_rft.body.frames import semantic_frame
from pose_rft.body.joints import SMPL24
from pose_rft.captions.predicates import Predicates, predicates
from pose_rft.sample.people import Shot, Studio
from pose_rft.sample.scene import BackgroundDescription, OutfitDescription

Pair = tuple[str, str]
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
CLEARLY_SEEN = 0.008  # share of the image's pixels; people with fewer visible pixels are not mentioned
UPRIGHT_CAMERA = np.diag([1.0, -1.0, -1.0])  # from the sample's world (y up) to a level camera in front of it


@dataclass(frozen=True)
class PersonFacts:
    """visible: the joints whose pixel in the image shows this person, not an occluder or somebody else."""

    pose: Predicates
    outfit: OutfitDescription
    visible: frozenset[str]

    def sees(self, *joints: str) -> bool:
        """Whether all of these joints are visible in the image."""
        return self.visible.issuperset(joints)


@dataclass(frozen=True)
class Facts:
    """What is true of one image; `people` lists everybody who is clearly visible.

    room: None if the background has no simple description; countable: nobody else is barely visible.
    """

    people: tuple[PersonFacts, ...]
    room: BackgroundDescription | None
    grayscale: bool
    countable: bool = True


def facts_of(shot: Shot, studio: Studio, grayscale: bool) -> Facts:
    """Returns the facts about an image and the people in it."""
    people = []
    pixels = [int(seen.mask.sum()) for seen in shot.seen]
    clear = CLEARLY_SEEN * shot.view.width * shot.view.height
    for seen, count in zip(shot.seen, pixels, strict=True):
        if count < clear:
            continue
        rest = studio.body(seen.person.identity.gender).rest_joints(seen.person.identity.betas)
        # "Up" is the world's, however the camera is held.
        upright = np.concatenate([UPRIGHT_CAMERA @ seen.person.rotations[:1], seen.person.rotations[1:]])
        pose = semantic_frame(torch.from_numpy(upright), "camera").numpy()
        visible = frozenset(
            name
            for name, (x, y) in zip(SMPL24.joints, seen.joints2d.astype(int), strict=True)
            if 0 <= x < shot.view.width and 0 <= y < shot.view.height and seen.mask[y, x]
        )
        people.append(PersonFacts(predicates(pose, rest), seen.person.identity.outfit.description, visible))
    countable = bool(people) and not any(0 < count < clear for count in pixels)
    return Facts(tuple(people), shot.background.description, grayscale, countable)


def ask(facts: Facts, rng: np.random.Generator, turns: int) -> list[Pair]:
    """Returns up to `turns` different question-answer pairs in random order; none if nothing is beyond dispute."""
    makers: list[Callable[[Facts, np.random.Generator], Pair | None]] = [_count] if facts.countable else []
    if not facts.grayscale and facts.room is not None:
        makers += [_floor, _wall]
    if len(facts.people) == 1:
        person = facts.people[0]
        makers += [_posture, _lean]
        makers += [_raised, _together] if person.sees("left_hand", "right_hand", "head") else []
        arms, legs = person.sees(*_both("shoulder", "elbow", "wrist")), person.sees(*_both("hip", "knee", "ankle"))
        makers += [_arm_out, _elbow] if arms else []
        makers += [_knee, _legs] if legs else []
        if person.outfit.complete:
            makers += [_sleeves] if arms else []
            makers += [_trousers_or_shorts] if legs else []
            makers += [_hair] if person.sees("head") else []
        whole = person.outfit.complete and person.sees("spine3", *_both("hip", "knee", "foot"))
        if whole and not facts.grayscale:
            makers += [_top, _bottom, _shoes, _clothes]
    pairs = [pair for i in rng.permutation(len(makers)) if (pair := makers[i](facts, rng)) is not None]
    return pairs[: max(turns, 1)]


def _both(*parts: str) -> list[str]:
    return [f"{side}_{part}" for side in ("left", "right") for part in parts]


def _say(rng: np.random.Generator, *choices: str) -> str:
    return choices[int(rng.integers(len(choices)))]


def _count(facts: Facts, rng: np.random.Generator) -> Pair:
    one, number = len(facts.people) == 1, NUMBERS[len(facts.people)]
    question = _say(rng, "How many people are in the image?", "How many persons can you see?", "Is anyone else there?")
    if question == "Is anyone else there?":
        question = "Is there more than one person in the image?"
        return question, "No, there is only one person." if one else f"Yes, there are {number} people."
    return question, _say(rng, "There is one person.", "One person is in the image.") if one else _say(
        rng, f"There are {number} people.", f"{number.capitalize()} people are in the image."
    )


def _floor(facts: Facts, rng: np.random.Generator) -> Pair:
    question = _say(
        rng, "What color is the floor?", "What is the color of the floor?", "Describe the color of the floor."
    )
    assert facts.room is not None
    return question, f"The floor is {facts.room.floor}."


def _wall(facts: Facts, rng: np.random.Generator) -> Pair:
    question = _say(rng, "What color is the wall?", "What is the color of the wall?", "Which color does the wall have?")
    assert facts.room is not None
    return question, f"The wall is {facts.room.wall}."


def _posture(facts: Facts, rng: np.random.Generator) -> Pair | None:
    pose = facts.people[0].pose
    words = {
        "standing": "standing", "sitting": "sitting", "lying": "lying down", "kneeling": "kneeling",
        "squatting": "squatting", "on all fours": "on hands and knees", "bending": "bending over",
    }  # fmt: skip
    if pose.posture not in words:
        return None
    doing = words[pose.posture]
    if pose.posture in ("standing", "sitting", "lying") and rng.uniform() < 0.4:
        asked = _say(rng, "standing", "sitting", "lying down")
        yes = asked == doing
        return f"Is the person {asked}?", f"Yes, the person is {doing}." if yes else f"No, the person is {doing}."
    question = _say(
        rng,
        "Is the person standing, sitting or lying down?",
        "What is the person doing?",
        "Is the person upright? What are they doing?",
        "How is the person positioned?",
    )
    return question, f"The person is {doing}."


def _raised(facts: Facts, rng: np.random.Generator) -> Pair | None:
    raised = facts.people[0].pose.raised_arms
    if raised is None:
        return None
    question = _say(
        rng,
        "Which arm is raised above the head?",
        "Does the person hold a hand above the head?",
        "Is an arm raised over the head?",
    )
    if question.startswith("Which"):
        answer = {
            "both": "Both arms are raised.",
            "none": "Neither arm is raised above the head.",
            "left": "The left arm is raised.",
            "right": "The right arm is raised.",
        }[raised]
    else:
        answer = {
            "both": "Yes, both hands are above the head.",
            "none": "No, both hands are below the top of the head.",
            "left": "Yes, the left hand is above the head.",
            "right": "Yes, the right hand is above the head.",
        }[raised]
    return question, answer


def _arm_out(facts: Facts, rng: np.random.Generator) -> Pair | None:
    pose = facts.people[0].pose
    side = _say(rng, "left", "right")
    out = pose.left_arm_to_the_side if side == "left" else pose.right_arm_to_the_side
    if out is None:
        return None
    question = f"Is the {side} arm stretched out to the side?"
    return (
        question,
        f"Yes, the {side} arm points to the side." if out else f"No, the {side} arm does not point to the side.",
    )


def _elbow(facts: Facts, rng: np.random.Generator) -> Pair | None:
    pose = facts.people[0].pose
    side = _say(rng, "left", "right")
    bent = pose.left_elbow_bent if side == "left" else pose.right_elbow_bent
    return _bent_or_straight(bent, f"{side} elbow", f"{side} arm", rng)


def _knee(facts: Facts, rng: np.random.Generator) -> Pair | None:
    pose = facts.people[0].pose
    side = _say(rng, "left", "right")
    bent = pose.left_knee_bent if side == "left" else pose.right_knee_bent
    return _bent_or_straight(bent, f"{side} knee", f"{side} leg", rng)


def _bent_or_straight(bent: bool | None, joint: str, limb: str, rng: np.random.Generator) -> Pair | None:
    if bent is None:
        return None
    question = _say(rng, f"Is the {joint} bent?", f"Is the {limb} bent or straight?")
    if question.endswith("straight?"):
        return question, f"The {limb} is {'bent' if bent else 'straight'}."
    return question, f"Yes, the {joint} is bent." if bent else f"No, the {limb} is straight."


def _together(facts: Facts, rng: np.random.Generator) -> Pair | None:
    together = facts.people[0].pose.hands_together
    if together is None:
        return None
    question = _say(rng, "Are the hands close together?", "Do the hands touch each other?")
    return question, "Yes, the hands are together." if together else "No, the hands are apart."


def _lean(facts: Facts, rng: np.random.Generator) -> Pair | None:
    pose = facts.people[0].pose
    if pose.lean is None or pose.posture in ("lying", "on all fours", "upside down", "other"):
        return None
    question = _say(rng, "Is the upper body upright or leaning?", "In which direction does the person lean?")
    where = {"forward": "forward", "backward": "backward", "left": "to the left", "right": "to the right"}
    if pose.lean == "upright":
        return question, "The upper body is upright."
    return question, f"The person leans {where[pose.lean]}."


def _legs(facts: Facts, rng: np.random.Generator) -> Pair | None:
    pose = facts.people[0].pose
    if pose.posture == "standing" and pose.on_one_leg is not None and rng.uniform() < 0.5:
        question = _say(rng, "Are both feet on the ground?", "Does the person stand on one leg?")
        if question.startswith("Are"):
            return question, "No, one foot is in the air." if pose.on_one_leg else "Yes, both feet are on the ground."
        return question, "Yes, one foot is off the ground." if pose.on_one_leg else "No, both feet are on the ground."
    if pose.feet_apart is None:
        return None
    question = _say(rng, "Are the feet apart?", "Are the feet close together or apart?")
    if question.endswith("or apart?"):
        return question, "The feet are apart." if pose.feet_apart else "The feet are close together."
    return question, "Yes, the feet are apart." if pose.feet_apart else "No, the feet are close together."


def _top(facts: Facts, rng: np.random.Generator) -> Pair:
    question = _say(
        rng, "What color is the shirt?", "What color of shirt does the person wear?", "Which color is the person's top?"
    )
    return question, f"The shirt is {facts.people[0].outfit.top}."


def _bottom(facts: Facts, rng: np.random.Generator) -> Pair:
    outfit = facts.people[0].outfit
    question = _say(rng, f"What color are the {outfit.legs}?", f"Which color do the {outfit.legs} have?")
    return question, f"The {outfit.legs} are {outfit.bottom}."


def _shoes(facts: Facts, rng: np.random.Generator) -> Pair:
    question = _say(rng, "What color are the shoes?", "Which color do the shoes have?")
    return question, f"The shoes are {facts.people[0].outfit.shoes}."


def _sleeves(facts: Facts, rng: np.random.Generator) -> Pair:
    sleeves = facts.people[0].outfit.sleeves
    question = _say(rng, "Does the shirt have long or short sleeves?", "How long are the sleeves?")
    return question, "The shirt has no sleeves." if sleeves == "none" else f"The sleeves are {sleeves}."


def _trousers_or_shorts(facts: Facts, rng: np.random.Generator) -> Pair:
    legs = facts.people[0].outfit.legs
    question = _say(rng, "Does the person wear shorts or trousers?", "Are the trousers long or short?")
    if question.startswith("Does"):
        return question, f"The person wears {legs}."
    return question, "The trousers are long." if legs == "trousers" else "They are short: the person wears shorts."


def _hair(facts: Facts, rng: np.random.Generator) -> Pair | None:
    hair = facts.people[0].outfit.hair
    if hair == "bald":
        return _say(rng, "Does the person have hair?", "Is the person bald?"), "The person is bald."
    if facts.grayscale:
        return None
    return _say(rng, "What color is the hair?", "What hair color does the person have?"), f"The hair is {hair}."


def _clothes(facts: Facts, rng: np.random.Generator) -> Pair:
    outfit = facts.people[0].outfit
    question = _say(rng, "Describe the clothes of the person.", "What is the person wearing?")
    pattern = "striped " if outfit.pattern == "striped" else ""
    shirt = f"{'an' if pattern == '' and outfit.top == 'orange' else 'a'} {pattern}{outfit.top} shirt"
    return question, f"The person wears {shirt} and {outfit.bottom} {outfit.legs}."
