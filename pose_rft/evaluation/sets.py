"""Which sets a run is measured on, and their role: test sets are for the final table, validation sets for choices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pose_rft.batches.examples import Task
from pose_rft.evaluation.protocols import EvaluateParams

TEXT_SET, VQA_SET = "posescript/test", "llava_instruct/heldout"
VALIDATION_TEXT = "posescript/val"


@dataclass(frozen=True)
class AskedSets:
    """test, validation: {label: data set/split} of pictures; asked: {data set/split: (task, most samples)} of all."""

    test: Mapping[str, str]
    validation: Mapping[str, str]
    asked: Mapping[str, tuple[Task, int | None]]

    def roles(self) -> dict[str, dict[str, str]]:
        """{test | validation: {label: data set/split}}, with the captions' sets under `posescript`."""
        texts = {"test": TEXT_SET, "validation": VALIDATION_TEXT}
        return {
            role: dict(pictured) | ({"posescript": texts[role]} if texts[role] in self.asked else {})
            for role, pictured in (("test", self.test), ("validation", self.validation))
        }


def asked_sets(params: EvaluateParams, there: Callable[[list[str]], list[str]]) -> AskedSets:
    """The sets of `evaluate`, those with captions and dialogues included, as far as this run has them.

    Args:
        there: keeps the names (`DATASET/SPLIT`) that the run has.
    """
    pictures = dict.fromkeys([*params.image_sets.values(), *params.validation_sets.values()])
    asked: dict[str, tuple[Task, int | None]] = dict.fromkeys(pictures, ("image_pose", params.image_samples))
    asked |= dict.fromkeys((TEXT_SET, VALIDATION_TEXT), ("text_pose", params.text_samples))
    asked |= {VQA_SET: ("vqa", params.vqa_samples)}
    kept = there(list(asked))
    test, validation = (
        {label: name for label, name in sets.items() if name in kept}
        for sets in (params.image_sets, params.validation_sets)
    )
    return AskedSets(test, validation, {name: asked[name] for name in kept})
