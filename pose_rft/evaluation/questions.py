"""A run's evaluation questions and its answers: examples of its sets, and captions of the posecode evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.batches.samples import Samples
from pose_rft.body.smpl import BodyModel
from pose_rft.evaluation import posecodes, protocols
from pose_rft.evaluation.posecodes import Codes
from pose_rft.evaluation.protocols import EvaluateParams
from pose_rft.evaluation.sets import AskedSets
from pose_rft.inference.answers import Predictions, heldout_examples, heldout_rewards, predict
from pose_rft.inference.rewards import Rewards
from pose_rft.inference.types import Prompts
from pose_rft.policy.processor import PoseProcessor
from pose_rft.progress import Progress
from pose_rft.seeds import torch_generator

HUMAN = "human"  # captions of the release, in addition to those of `posecodes.GRAMMARS`
Found = Mapping[str, tuple[Predictions, dict[str, Tensor]]]


@dataclass(frozen=True, eq=False)
class Questions:
    """examples: {data set/split or grammar: examples}; stated: {kind of caption: facts that each caption states}; text:
    the set of human captions; unjudged: names of examples whose answers get no rewards."""

    examples: Mapping[str, Sequence[Example]]
    stated: Mapping[str, Codes]
    text: str
    unjudged: frozenset[str]

    @property
    def captions(self) -> dict[str, str]:
        """{kind of caption: the name of its examples}."""
        return {kind: self.text if kind == HUMAN else kind for kind in self.stated}


def questions(chosen: AskedSets, sets: Mapping[str, Samples], processor: PoseProcessor, body: BodyModel) -> Questions:
    """Makes the questions; they are the same for every run and seed."""
    examples = {
        name: heldout_examples(
            task,
            sets[name],
            processor,
            body,
            most,
            human_only=task == "text_pose",
            measured=task == "image_pose" and protocols.is_measured(sets[name]),
        )
        for name, (task, most) in chosen.asked.items()
    }
    stated = {HUMAN: posecodes.true_codes(examples[chosen.text], body)}
    for grammar in posecodes.GRAMMARS:
        asked_in = posecodes.asked_in(grammar, examples[chosen.text], stated[HUMAN], processor.text_questions)
        examples[grammar], stated[grammar] = asked_in
    unjudged = frozenset((*posecodes.GRAMMARS, *chosen.reasoning))
    return Questions(examples, stated, chosen.text, unjudged)


def answers(
    model: Any,
    prepare: Callable[[Sequence[Example]], Prompts],
    asked: Questions,
    rewards: Rewards,
    params: EvaluateParams,
    seed: int,
    label: str,
) -> Found:
    """{set or grammar: (answers, rewards)}; reasoning sets and generated captions get no rewards."""
    found = {}
    with Progress(label, sum(map(len, asked.examples.values())), "answers") as progress:
        for name, examples in asked.examples.items():
            prediction = predict(
                model,
                prepare,
                examples,
                end_token_id=rewards.processor.eos_token_id,
                max_new_tokens=params.max_new_tokens,
                batch=params.batch,
                generator=torch_generator(seed, "evaluate", name, device=model.device),
                progress=progress,
            )
            judged = name not in asked.unjudged
            found[name] = (prediction, heldout_rewards(prediction, rewards) if judged else {})
    return found
