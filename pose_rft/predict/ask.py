"""Asks a policy questions that it answers in words instead of poses (`pose-rft ask`, and `pose-rft demo`)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pose_rft.errors import PoseRftError
from pose_rft.inference.sampling import generate
from pose_rft.io.text import is_text
from pose_rft.policy import hub
from pose_rft.policy.config import CLIP_NORM, IMAGENET_NORM
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.person_crops import normalise
from pose_rft.policy.processor import PoseProcessor
from pose_rft.predict.regions import Region

LONGEST_ANSWER = 64  # tokens


def answers(folder: Path, questions: list[str], longest: int) -> list[str]:
    """Returns the greedily decoded answer to each question, without a picture; at most `longest` tokens.

    Raises:
        PoseRftError: the folder holds no policy, or a question is not valid UTF-8.
    """
    if not all(map(is_text, questions)):
        raise PoseRftError("A question is no valid UTF-8; give it in this terminal's encoding.")
    model, processor = hub.load_policy(folder)
    prompts = [processor.prompt_ids(question, False) for question in questions]
    said = generate(model.eval(), prompts, None, n=1, max_new_tokens=longest, temperature=0.0)
    return [processor.decode(said.answer(i, 0)) for i in range(len(questions))]


def about_picture(
    model: PoseLlava, processor: PoseProcessor, pixels: NDArray[np.uint8], region: Region, question: str
) -> str:
    """Returns the greedily decoded answer to a question about a region of a picture (H, W, 3) RGB."""
    image = processor.image
    clip, pose = (
        normalise(region.cut(pixels, size), norm)[None]
        for size, norm in ((image.size, CLIP_NORM), (image.pose_size, IMAGENET_NORM))
    )
    tokens = model.encode_images(clip, pose)
    said = generate(model, [processor.prompt_ids(question, True)], tokens, 1, LONGEST_ANSWER, temperature=0.0)
    return processor.decode(said.answer(0, 0))
