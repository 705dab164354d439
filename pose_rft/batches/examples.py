"""The policy's questions and target answers: makes Examples from samples, by task.

| task | prompt | target |
|---|---|---|
| image_pose | image, question | answer template + pose in the camera frame |
| text_pose | caption inside a question | answer template + pose without heading, facing a level camera |
| image_text_pose | image, caption inside a question | answer template + pose in the camera frame |
| vqa | image, question | the release's answer, no pose |

A mixture draws (task, data set) by weight. Every choice (question, caption, mirror) derives from (seed, position), so
position p gives the same example on any number of ranks and after any restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from pose_rft.batches.samples import Samples
from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import matrix_to_sixd, mirror_rotations
from pose_rft.body.smpl import BodyModel
from pose_rft.errors import PoseRftError
from pose_rft.params import Count, Fraction, NonNegative, Section
from pose_rft.record import Caption
from pose_rft.seeds import derive, numpy_rng
from pose_rft.shards.mixture import Mixture, Source

Task = Literal["text_pose", "image_pose", "image_text_pose", "vqa"]
TASKS: tuple[Task, ...] = get_args(Task)
IMAGE_TASKS = ("image_pose", "image_text_pose", "vqa")
POSE_TASKS = ("text_pose", "image_pose", "image_text_pose")


class ExampleParams(Section):
    """Which examples a training run draws.

    mixture: {task: {data set: weight}}; only the ratios of the weights matter.
    flip: share of image_pose examples that are mirrored (other tasks are not, because captions and dialogues mention
        left and right). human_captions: share of human captions where a pose has both kinds (ChatPose uses half).
    skip_flags: samples with one of these flags, set by a reader or `validate`, are not trained on.
    """

    mixture: dict[Task, dict[str, NonNegative]]
    flip: Fraction = 0.5
    human_captions: Fraction = 0.5
    skip_flags: tuple[str, ...] = Field(default=())

    @field_validator("mixture")
    @classmethod
    def _draws_something(cls, mixture: dict[Task, dict[str, float]]) -> dict[Task, dict[str, float]]:
        if not sum(sum(weights.values()) for weights in mixture.values()) > 0:
            raise ValueError("at least one weight must be positive")
        return mixture

    def datasets(self) -> list[str]:
        """The data sets with a positive weight, sorted."""
        return sorted({name for weights in self.mixture.values() for name, weight in weights.items() if weight > 0})

    def pictured(self) -> list[str]:
        """The data sets of `image_pose` with a positive weight, sorted."""
        return sorted(name for name, weight in self.mixture.get("image_pose", {}).items() if weight > 0)


class HeldoutParams(Section):
    """A quick held-out check: `samples` images of each {data set: split}, and as many texts."""

    samples: Count
    image_pose: dict[str, str]
    text_pose: dict[str, str]

    def tasks(self) -> list[tuple[Task, dict[str, str]]]:
        """The tasks that have held-out examples."""
        return [("image_pose", self.image_pose), ("text_pose", self.text_pose)]


class ImageRef(NamedTuple):
    """The crop of sample `row` of the set `name`, mirrored or not."""

    name: str
    row: int
    flip: bool


@dataclass(frozen=True, eq=False)
class Example:
    """One question with its answer; image, caption and pose are None where the task has none.

    pose6d: (24, 6) rotations, root in the camera frame. pose_mask: (24,) bool, labelled joints. joints: (24, 3)
    metres, camera frame, pelvis at the origin, on the mean shape (betas 0), as for every prediction.
    """

    key: str
    task: Task
    question: str
    answer: str
    caption: str | None = None
    image: ImageRef | None = None
    pose6d: Tensor | None = None
    pose_mask: Tensor | None = None
    joints: Tensor | None = None


class Poses:
    """Precomputed targets of one set for one task, plain and mirrored."""

    def __init__(self, rotations: Tensor, labelled: Tensor, body: BodyModel) -> None:
        """rotations: (N, 24, 3, 3) in the frame of the target; labelled: (N, 24)."""
        flip = list(SMPL24.flip)
        self.sixd = {False: matrix_to_sixd(rotations), True: matrix_to_sixd(mirror_rotations(rotations))}
        self.mask = {False: labelled, True: labelled[:, flip]}
        with torch.no_grad():
            joints = torch.cat([body.joints(chunk) for chunk in rotations.split(4096)]) if len(rotations) else None
        joints = joints - joints[:, :1] if joints is not None else rotations.new_zeros(0, 24, 3)
        # Mirrored points, not joints of the mirrored rotations: a body model need not be exactly symmetric.
        self.joints = {False: joints, True: joints[:, flip] * joints.new_tensor([-1.0, 1.0, 1.0])}


class ExampleMaker:
    """Makes examples of one set and task from row numbers; `rows` lists the samples that suit the task."""

    def __init__(
        self,
        samples: Samples,
        task: Task,
        templates: Any,
        body: BodyModel,
        params: ExampleParams,
        measured: bool = False,
    ) -> None:
        """
        Args:
            templates: `PoseProcessor` (its question lists and ANSWER).
            measured: use samples with measured joints, with or without an SMPL fit.
        """
        self.samples, self.task, self.templates, self.params = samples, task, templates, params
        skipped = torch.tensor([bool({*flags} & {*params.skip_flags}) for flags in samples.flags], dtype=torch.bool)
        suitable = ~skipped
        if task in IMAGE_TASKS:
            suitable &= samples.has_image
        if task in POSE_TASKS:
            suitable &= samples.measured.isfinite().flatten(1).all(1) if measured else samples.labelled.any(1)
        if task in ("text_pose", "image_text_pose"):
            suitable &= torch.tensor([bool(captions) for captions in samples.captions])
        if task == "vqa":
            suitable &= torch.tensor([bool(_exchanges(samples, row)) for row in range(len(samples))])
        self.rows = suitable.nonzero()[:, 0].tolist()
        if task in POSE_TASKS:
            rotations = samples.headingless_rotations() if task == "text_pose" else samples.rotations
            self.poses = Poses(rotations, samples.labelled, body)

    def make(self, row: int, rng: np.random.Generator, flip: bool = False) -> Example:
        """Makes one sample's example; `rng` chooses question and caption. flip: mirrors it, `image_pose` only."""
        samples, templates, key = self.samples, self.templates, self.samples.keys[row]
        image = ImageRef(samples.name, row, flip) if self.task in IMAGE_TASKS else None
        if self.task == "vqa":
            question, answer = _pick(_exchanges(samples, row), rng)
            return Example(key, self.task, question, answer, image=image)
        caption = None
        if self.task != "image_pose":
            caption = self._caption(samples.captions[row], rng)
        question = self._question(row, caption, rng)
        if not self.poses.mask[flip][row].any():
            return Example(key, self.task, question, templates.ANSWER, caption, image)
        target = (self.poses.sixd[flip][row], self.poses.mask[flip][row], self.poses.joints[flip][row])
        return Example(key, self.task, question, templates.ANSWER, caption, image, *target)

    def _question(self, row: int, caption: str | None, rng: np.random.Generator) -> str:
        """The sample's own question (ChatPose's benchmarks), else one of our templates with its caption."""
        if self.samples.dialogue[row]:
            return self.samples.dialogue[row][0].text
        questions = {
            "image_pose": self.templates.image_questions,
            "text_pose": self.templates.text_questions,
            "image_text_pose": self.templates.image_text_questions,
        }[self.task]
        question: str = _pick(questions, rng)
        return question.format(caption=caption) if caption is not None else question

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """Makes a training example of the index-th suitable sample."""
        flip = self.task == "image_pose" and rng.random() < self.params.flip
        return self.make(self.rows[index], rng, flip)

    def _caption(self, captions: tuple[Caption, ...], rng: np.random.Generator) -> str:
        human = [caption.text for caption in captions if caption.kind == "human"]
        automatic = [caption.text for caption in captions if caption.kind == "automatic"]
        take_human = rng.random() < self.params.human_captions
        return _pick(human if human and (take_human or not automatic) else automatic, rng)


class ExampleStream:
    """The endless sequence of training examples: `draw(position)` is a pure function of (seed, position)."""

    def __init__(
        self, sets: Mapping[str, Samples], params: ExampleParams, templates: Any, body: BodyModel, seed: int
    ) -> None:
        """sets: {data set: its training samples}.

        Raises:
            PoseRftError: a data set with a weight is not in `sets`, or has no sample for its task.
        """
        self.seed = seed
        self.makers: dict[str, ExampleMaker] = {}
        sources: dict[str, Source] = {}
        for task, weights in params.mixture.items():
            for name, weight in weights.items():
                if weight == 0:
                    continue
                if name not in sets:
                    raise PoseRftError(f"The mixture draws {task} from `{name}`, which is not among {', '.join(sets)}.")
                maker = ExampleMaker(sets[name], task, templates, body, params)
                if not maker.rows:
                    raise PoseRftError(
                        f"{sets[name].name} has no sample for {task}; set its weight in `mixture` to 0 or convert it."
                    )
                self.makers[f"{task}/{name}"] = maker
                sources[f"{task}/{name}"] = Source(len(maker.rows), weight)
        self._mixture = Mixture(sources, derive(seed, "examples"))

    def draw(self, position: int) -> Example:
        """Returns the example at a position of the stream."""
        source, index = self._mixture.draw(position)
        return self.makers[source].draw(index, numpy_rng(self.seed, "example", position))


def _exchanges(samples: Samples, row: int) -> list[tuple[str, str]]:
    """The question-answer pairs of a dialogue; each becomes a question of its own."""
    pairs = pairwise(samples.dialogue[row])
    return [(q.text, a.text) for q, a in pairs if q.speaker == "human" and a.speaker == "assistant" and a.text.strip()]


def _pick(choices: Any, rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(len(choices)))]
