"""Known facts about LLaVA-Instruct: the files of a complete copy, the conversion cost, and published counts.

Counts are from its release notes.
"""

from typing import Any

from pose_rft.datasets.common.facts import ALL, RECORD_BYTES, Cost, Facts, Need, Published


def _of_150k(params: Any) -> bool:
    return len(params.splits) == 2 and params.file == "llava_instruct_150k.json"


FACTS = Facts(
    needs=(
        Need(lambda params: (params.file,), "dialogues"),
        Need(
            tuple(f"{year}/*.jpg" for year in ("train2017", "train2014", "val2014", "val2017")),
            "COCO photographs (train2017, or train2014 and val2014)",
            81_479,
            other="images",
        ),
    ),
    cost=Cost(1_170, RECORD_BYTES, "*20*/*.jpg", other="images"),
    published=(
        Published(ALL, "samples", 157_712, when=_of_150k),
        Published(ALL, "images", 81_479, when=_of_150k),
    ),
    coco_pictures=True,
)
