"""The posecode judge at work: captions whose facts are known, the policy's poses, and how far the two agree.

Captions are written here from the true poses of the test set, in two grammars: `automatic`, that of the project's
automatic captions, which training has, and `unheard`, which no training has. So every data set that has poses can be
asked, whatever captions its release brings: PoseScript's own come as sentences alone, without the posecodes that its
automatic ones were made of. The release's human captions state no codes that are known; the poses drawn from those
are compared with all the facts of the true pose.
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
KNOWN = "automatic"  # whose precision and recall stand for the run
Codes = list[list[Posecode]]


def codes_of(rotations: Tensor, body: BodyModel) -> Codes:
    """All facts of each pose (N, 24, 3, 3), camera frame, on the mean shape."""
    rest = body.rest_joints()[0].cpu().numpy()
    return posecodes(pose_bodies(semantic_frame(rotations, "camera").cpu().numpy(), rest))


def true_codes(examples: Sequence[Example], body: BodyModel) -> Codes:
    """Those of the examples' own poses."""
    poses = torch.stack([example.pose6d for example in examples if example.pose6d is not None])
    return codes_of(sixd_to_matrix(poses), body)


def asked_in(
    grammar: str, examples: Sequence[Example], codes: Codes, questions: Sequence[str]
) -> tuple[list[Example], Codes]:
    """The examples with a caption of this grammar in place of their own, and the facts that each states.

    Args:
        codes: `true_codes` of the examples. questions: templates with `{caption}`.
    The same captions for every run and seed.
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
    """What the metrics of a run keep: `precision`, `recall` and `by_kind` of the grammar that training has, and the
    same of every other kind of caption below its name.

    Args:
        poses: {kind of caption: (N, 24, 3, 3)}, camera frame. stated: {the same kinds: facts of each caption}.
    """
    found = {name: _content(agreement(codes_of(shown, body), stated[name])) for name, shown in poses.items()}
    return found.pop(KNOWN) | found


def constant(pose: Tensor, stated: Mapping[str, Codes], body: BodyModel) -> dict[str, Any]:
    """The same of one pose (144,) for every caption: what a policy reaches that does not read."""
    codes = codes_of(sixd_to_matrix(pose.view(1, 24, 6)), body)
    found = {name: _content(agreement(codes * len(facts), facts)) for name, facts in stated.items()}
    return found.pop(KNOWN) | found


def _content(found: dict[str, Agreement]) -> dict[str, Any]:
    overall = found["all"]
    by_kind = {kind: one._asdict() for kind, one in found.items() if kind != "all"}
    return {"precision": overall.precision, "recall": overall.recall, "by_kind": by_kind}
