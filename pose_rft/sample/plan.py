"""How much of each miniature release is rendered, and the shape that all its writers share.

A writer is a module with three functions (`Writer`). `tasks` cuts the release into pieces that a process can render
alone, `render` makes the pictures and videos of one piece and returns what annotations need, `finish` writes the
annotation files from all results. `pose_rft.sample.build` runs the pieces of all releases over one pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from pose_rft.params import Count, Fraction, Pixels, Section

if TYPE_CHECKING:
    from pose_rft.sample.people import Studio


class VideoSample(Section):
    """A release of videos: sequences x cameras x frames that are rendered."""

    size: Pixels = 128  # px, the picture's shorter side
    train_sequences: Count  # per training subject
    test_sequences: int = Field(ge=0, default=0)  # per test subject; 0 for 3DHP
    frames: Count  # rendered frames per training video; frames between them repeat, as nobody reads them
    test_frames: Count = 1


class PictureSample(Section):
    """A release of single pictures."""

    size: Pixels = 112  # px
    train: Count
    val: int = Field(ge=0, default=0)


class Pw3dSample(Section):
    """3DPW: sequences of the test set, of one or two people; `train_sequences` more like them, which nobody learns from
    and settings may be chosen on; `hard_sequences`, the validation set, show hard poses and cameras (`varied`)."""

    size: Pixels = 112  # px
    sequences: Count
    frames: Count = 20
    train_sequences: Count = 1
    hard_sequences: Count = 1
    hard_frames: Count = 8


class PoseScriptSample(Section):
    """Poses per split, and how many of the training poses have a human caption (val and test: all)."""

    train: Count
    train_human: Count
    val: Count
    test: Count
    automatic_captions: Count = 3


class EmdbSample(Section):
    """EMDB: sequences of EMDB 1, one person each; one more belongs to EMDB 2."""

    size: Pixels
    sequences: Count
    frames: Count


class ChatPoseSample(Section):
    """ChatPose's benchmarks: pictures of two people with a question of each aspect, questions for test poses."""

    size: Pixels
    pictures: Count
    questions: Count


class LlavaSample(Section):
    """Dialogues about pictures of COCO's training set; some pictures have two."""

    dialogues: Count
    longest: Count = 3  # question-answer pairs in one dialogue


class SampleParams(Section):
    """`sample` in params.yaml."""

    processes: Count
    h36m: VideoSample
    mpi_inf_3dhp: VideoSample
    coco: PictureSample
    mpii: PictureSample
    bedlam: PictureSample
    pw3d: Pw3dSample
    posescript: PoseScriptSample
    llava_instruct: LlavaSample
    emdb: EmdbSample | None = None  # test sets that nobody trains on are rendered where they are asked for
    chatpose: ChatPoseSample | None = None
    vocabulary: Count = 4000  # words of the tokenizer at most
    two_people: Fraction = 0.12  # share of COCO, MPII and BEDLAM pictures that show two people, among the plain ones
    varied: Fraction = 0.4  # share of COCO's, MPII's and BEDLAM's training pictures that are as hard as photographs


@dataclass(frozen=True)
class Task:
    """A piece of one release: `index` orders it, `payload` is for the writer, `weight` = pictures it renders."""

    release: str
    index: int
    payload: tuple[Any, ...]
    weight: int


class Writer(Protocol):
    """What `pose_rft.sample.write_*` modules offer. Paths: `root` is the folder that holds one folder per release."""

    def tasks(self, params: SampleParams, seed: int) -> list[Task]:
        """The pieces of work that render the release."""
        ...

    def render(self, task: Task, params: SampleParams, seed: int, studio: "Studio", root: Path) -> Any:
        """Writes the task's media below `root`; returns picklable rows for `finish`."""

    def finish(self, params: SampleParams, seed: int, results: Sequence[Any], root: Path) -> None:
        """Writes the annotation files; `results` in the order of `tasks`."""
