"""How much of each miniature release is rendered, and the interface that all writers implement.

A writer is a module with three functions (`Writer`): `tasks` splits the release into tasks that processes can render
independently, `render` writes the images and videos of one task and returns what the annotations need, and `finish`
writes the annotation files from all results. `pose_rft.sample.build` runs the tasks of all releases in one pool.
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
    """A video release: sequences x cameras x frames are rendered."""

    size: Pixels = 128  # px, the shorter side of the image
    train_sequences: Count  # per training subject
    test_sequences: int = Field(ge=0, default=0)  # per test subject; 0 for 3DHP
    frames: Count  # rendered frames per training video; the frames between them are repeats, as no reader uses them
    test_frames: Count = 1


class PictureSample(Section):
    """A release of still images."""

    size: Pixels = 112  # px
    train: Count
    val: int = Field(ge=0, default=0)


class Pw3dSample(Section):
    """3DPW: `sequences` of one or two people form the test set. `train_sequences` are similar; no model trains on them,
    so settings may be tuned on them. `hard_sequences`, the validation set, show hard poses and cameras (`varied`)."""

    size: Pixels = 112  # px
    sequences: Count
    frames: Count = 20
    train_sequences: Count = 1
    hard_sequences: Count = 1
    hard_frames: Count = 8


class PoseScriptSample(Section):
    """Poses per split, and how many training poses have a human caption (in val and test, all do)."""

    train: Count
    train_human: Count
    val: Count
    test: Count
    automatic_captions: Count = 3


class EmdbSample(Section):
    """EMDB: `sequences` of EMDB 1, one person each; one more sequence belongs to EMDB 2."""

    size: Pixels
    sequences: Count
    frames: Count


class ChatPoseSample(Section):
    """ChatPose's benchmarks: images of two people with one question per aspect, and questions for test poses."""

    size: Pixels
    pictures: Count
    questions: Count


class LlavaSample(Section):
    """Dialogues about images of COCO's training set; some images have two."""

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
    emdb: EmdbSample | None = None  # test-only releases are optional: rendered only if configured
    chatpose: ChatPoseSample | None = None
    vocabulary: Count = 4000  # maximum number of words in the tokenizer
    two_people: Fraction = 0.12  # share of the plain (not varied) COCO, MPII and BEDLAM images that show two people
    varied: Fraction = 0.4  # share of COCO, MPII and BEDLAM training images that are as hard as photographs (`varied`)


@dataclass(frozen=True)
class Task:
    """A unit of work of one release: `index` gives its order, `payload` is the writer's, `weight` counts its images."""

    release: str
    index: int
    payload: tuple[Any, ...]
    weight: int


class Writer(Protocol):
    """Interface of the `pose_rft.sample.write_*` modules. `root` is the folder that holds one folder per release."""

    def tasks(self, params: SampleParams, seed: int) -> list[Task]:
        """Returns the tasks that render the release."""
        ...

    def render(self, task: Task, params: SampleParams, seed: int, studio: "Studio", root: Path) -> Any:
        """Writes the task's media below `root`; returns picklable rows for `finish`."""

    def finish(self, params: SampleParams, seed: int, results: Sequence[Any], root: Path) -> None:
        """Writes the annotation files; `results` are in the order of `tasks`."""
