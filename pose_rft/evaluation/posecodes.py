"""The posecode evaluation: do a policy's poses agree with captions whose facts are known?

Captions are generated here from the true poses of the test set, in two grammars: `automatic`, that of the project's
automatic captions, which training uses, and `unheard`, which no training uses. So every data set with poses can be
evaluated, whatever captions its release has: PoseScript's own are sentences only, without the posecodes behind its
automatic ones. The facts in human captions are unknown, so poses predicted from them are compared with all facts of
the true pose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.body.frames import semantic_frame
from pose_rft.body.rotations import sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.captions.draws import Draws
from pose_rft.captions.geometry import pose_bodies
from pose_rft.captions.posecodes import Posecode, posecodes
from pose_rft.captions.sentences import Told, told
from pose_rft.captions.unheard import told_unheard
from pose_rft.metrics.posecodes import Agreement, agreement
from pose_rft.seeds import numpy_rng

GRAMMARS: dict[str, Callable[[Sequence[Posecode], Draws], Told]] = {"automatic": told, "unheard": told_unheard}
KNOWN = "automatic"  # its precision and recall are the headline numbers of the run
Codes = list[list[Posecode]]


def codes_of(rotations: Tensor, body: BodyModel) -> Codes:
    """All facts of each pose (N, 24, 3, 3), camera frame, on the mean shape."""
    rest = body.rest_joints()[0].cpu().numpy()
    return posecodes(pose_bodies(semantic_frame(rotations, "camera").cpu().numpy(), rest))


def true_codes(examples: Sequence[Example], body: BodyModel) -> Codes:
    """All facts of the examples' true poses."""
    poses = torch.stack([example.pose6d for example in examples if example.pose6d is not None])
    return codes_of(sixd_to_matrix(poses), body)


def asked_in(
    grammar: str, examples: Sequence[Example], codes: Codes, questions: Sequence[str]
) -> tuple[list[Example], Codes]:
    """Replaces the examples' captions by ones in this grammar; also returns the facts that each caption states.

    Args:
        codes: `true_codes` of the examples. questions: templates with `{caption}`.
    The captions are the same for every run and seed.
    """
    asked, stated = [], []
    for example, own in zip(examples, codes, strict=True):
        rng = numpy_rng(0, "posecodes", grammar, example.key)
        question = questions[int(rng.integers(len(questions)))]
        with Draws(rng) as draws:
            text, facts = GRAMMARS[grammar](own, draws)
        asked.append(replace(example, caption=text, question=question.format(caption=text)))
        stated.append(list(facts))
    return asked, stated


def agreements(poses: Mapping[str, Tensor], stated: Mapping[str, Codes], body: BodyModel) -> dict[str, Any]:
    """The posecode metrics of a run: `precision`, `recall` and `by_kind` of the grammar used in training, and the
    same for every other kind of caption under its name.

    Args:
        poses: {kind of caption: (N, 24, 3, 3)}, camera frame. stated: {the same kinds: facts of each caption}.
    """
    found = {name: _content(agreement(codes_of(shown, body), stated[name])) for name, shown in poses.items()}
    return found.pop(KNOWN) | found


def constant(pose: Tensor, stated: Mapping[str, Codes], body: BodyModel) -> dict[str, Any]:
    """The same metrics for one pose (144,) given to every caption: the score of a policy that ignores its input."""
    codes = codes_of(sixd_to_matrix(pose.view(1, 24, 6)), body)
    found = {name: _content(agreement(codes * len(facts), facts)) for name, facts in stated.items()}
    return found.pop(KNOWN) | found


def _content(found: dict[str, Agreement]) -> dict[str, Any]:
    overall = found["all"]
    by_kind = {kind: one._asdict() for kind, one in found.items() if kind != "all"}
    return {"precision": overall.precision, "recall": overall.recall, "by_kind": by_kind}
