"""Known facts about ChatPose's reasoning benchmarks: the files of a complete copy, the cost, and published counts.

Each of the four question files has 50 rows (jjunsss/RPE-Refined). ChatPose states 780 SPG questions; a user's own file
may have any number.
"""

from typing import Any

from pose_rft.datasets.chatpose.reader import ASPECTS, SPG_FILE, question_file
from pose_rft.datasets.common.facts import RECORD_BYTES, Cost, Facts, Need, Published


def _aspects(params: Any) -> list[str]:
    return [split for split in ASPECTS if split in params.splits]


FACTS = Facts(
    needs=(
        Need(
            lambda params: tuple(question_file(split) for split in _aspects(params)),
            "questions about people in pictures (RPE-Refined)",
            lambda params: len(_aspects(params)),
        ),
        Need(
            "imageFiles/*",
            "picture folders of 3DPW (imageFiles.zip)",
            lambda params: min(1, len(_aspects(params))),
            other="pictures",
        ),
        Need(SPG_FILE, "questions for poses (docs/formats.md)", lambda params: int("spg" in params.splits)),
    ),
    cost=Cost(200, RECORD_BYTES, "imageFiles/*/*.jpg", other="pictures"),
    published=tuple(Published(split, "samples", 50) for split in ASPECTS),
    gendered_bodies=True,
)
