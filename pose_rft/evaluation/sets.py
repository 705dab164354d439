"""The sets that a run is evaluated on and their roles: test sets for the final table, validation sets for choices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pose_rft.batches.examples import Task
from pose_rft.errors import PoseRftError
from pose_rft.evaluation.protocols import EvaluateParams

VQA_SET = "llava_instruct/heldout"
VALIDATION_TEXT = "posescript/val"
SPECULATIVE = "spg"  # ChatPose's split whose questions have no image


@dataclass(frozen=True)
class AskedSets:
    """test, validation: {label: data set/split} of image sets; text: the set of captions for recall;
    reasoning: ChatPose's benchmarks; asked: {data set/split: (task, maximum number of samples)} for all of them."""

    test: Mapping[str, str]
    validation: Mapping[str, str]
    text: str
    reasoning: tuple[str, ...]
    asked: Mapping[str, tuple[Task, int | None]]

    def roles(self) -> dict[str, dict[str, str]]:
        """{test | validation: {label: data set/split}}, with the caption set under `posescript`."""
        texts = {"test": self.text, "validation": VALIDATION_TEXT}
        return {
            role: dict(pictured) | ({"posescript": texts[role]} if texts[role] in self.asked else {})
            for role, pictured in (("test", self.test), ("validation", self.validation))
        }


def asked_sets(params: EvaluateParams, there: Callable[[list[str]], list[str]]) -> AskedSets:
    """The sets of `evaluate` that this run has, including those with captions and dialogues.

    Args:
        there: filters names (`DATASET/SPLIT`) to those that the run has.
    Raises:
        PoseRftError: the run does not have the captions of `evaluate.text_set`.
    """
    pictures = dict.fromkeys([*params.image_sets.values(), *params.validation_sets.values()])
    asked: dict[str, tuple[Task, int | None]] = dict.fromkeys(pictures, ("image_pose", params.image_samples))
    asked |= dict.fromkeys((params.text_set, VALIDATION_TEXT), ("text_pose", params.text_samples))
    asked |= {VQA_SET: ("vqa", params.vqa_samples)}
    for name in params.reasoning_sets:
        asked[name] = ("text_pose" if is_speculative(name) else "image_text_pose", None)
    kept = there(list(asked))
    if params.text_set not in kept:
        raise PoseRftError(
            f"`evaluate.text_set` is {params.text_set}, which this run does not have; name a split of `datasets` that "
            "has captions and poses, such as posescript/test."
        )
    test, validation = (
        {label: name for label, name in sets.items() if name in kept}
        for sets in (params.image_sets, params.validation_sets)
    )
    reasoning = tuple(name for name in params.reasoning_sets if name in kept)
    return AskedSets(test, validation, params.text_set, reasoning, {name: asked[name] for name in kept})


def is_speculative(name: str) -> bool:
    """Whether the questions of a reasoning set have no image."""
    return name.partition("/")[2] == SPECULATIVE
