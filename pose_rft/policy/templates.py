"""Templates of questions and answers.

Dialogues use the chat format that the language model was trained on: LLaVA-1.5's (Vicuna v1 without its preamble, as in
the hub's chat template), or ChatML. Several questions per task keep the policy from relying on one wording; the answer
to a pose question is the one sentence that the format reward requires (paper eq. 9).
"""

from collections.abc import Container
from typing import NamedTuple

POSE_TOKEN = "<POSE>"
IMAGE_TOKEN = "<image>"

ANSWER = f"The SMPL pose of this person is {POSE_TOKEN}."

IMAGE_QUESTIONS = (
    "What is the SMPL pose of this person?",
    "Give the SMPL pose of the person in this image.",
    "How is the person in this image posed? Answer with the SMPL pose.",
    "Look at this image and show the pose of the person.",
    "Which pose does this person hold? Show it as SMPL.",
    "Show the body pose of this person.",
)

TEXT_QUESTIONS = (
    "Show the SMPL pose of this description: {caption}",
    "Here is a description of a person. {caption} What is the SMPL pose?",
    "A person is described like this: {caption} Give the SMPL pose.",
    "Which SMPL pose does this text describe? {caption}",
    "Pose a body as described: {caption}",
    "Give the body pose for this description. {caption}",
)

IMAGE_TEXT_QUESTIONS = (
    "The person in this image is described like this: {caption} What is the SMPL pose?",
    "Give the SMPL pose of this person. A description: {caption}",
    "Here is an image of a person and a description of the pose. {caption} Show the pose.",
    "Use the image and this text to show the SMPL pose: {caption}",
)


class Form(NamedTuple):
    """A chat format: the text before a question, and between it and the answer."""

    opening: str
    closing: str


FORMS = {
    "llava": Form("USER: ", " ASSISTANT:"),
    "chatml": Form("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
}


def form_of(vocabulary: Container[str]) -> str:
    """The chat format for a language model with these tokens: ChatML if they include its markers, else LLaVA's."""
    return "chatml" if "<|im_start|>" in vocabulary and "<|im_end|>" in vocabulary else "llava"


def prompt(question: str, has_image: bool, form: str = "llava") -> str:
    """The dialogue up to where the policy's answer begins."""
    picture = f"{IMAGE_TOKEN}\n" if has_image else ""
    return f"{FORMS[form].opening}{picture}{question}{FORMS[form].closing}"
