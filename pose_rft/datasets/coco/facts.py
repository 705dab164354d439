"""Known facts about COCO: the files of a complete copy, the conversion cost, and published counts.

Counts are from the READMEs of COCO and EFT.
"""

from typing import Any

from pose_rft.datasets.common.facts import RECORD_BYTES, Cost, Facts, Need, Patterns, Published


def _coco_folders(params: Any) -> Patterns:
    folders = [f"{split}{params.year}" for split in params.splits]
    return tuple(f"{folder}/{below}*.*" for folder in folders for below in ("", "*/"))


def _coco_pictures(params: Any) -> int:
    sizes = {("train", 2014): 82_783, ("val", 2014): 40_504, ("train", 2017): 118_287, ("val", 2017): 5_000}
    return sum(sizes[split, params.year] for split in params.splits)


FACTS = Facts(
    needs=(
        Need("annotations/person_keypoints_*.json", "keypoints (annotations_trainval20xx.zip)"),
        Need(_coco_folders, "photographs (train20xx.zip, val20xx.zip)", _coco_pictures),
    ),
    cost=Cost(950, RECORD_BYTES, "*20*/*.jpg"),
    published=(
        Published("train", "samples", 28_344, when=lambda params: params.year == 2014 and params.body_joints == 12),
    ),
    coco_pictures=True,
)
