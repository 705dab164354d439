"""Known facts about MPII: the files of a complete copy, the conversion cost, and published counts.

Counts are from HRNet's lists.
"""

from typing import Any

from pose_rft.datasets.common.facts import RECORD_BYTES, Cost, Explanation, Facts, Need, Patterns, Published


def _mpii_labels(params: Any) -> Patterns:
    if params.labels is None:
        return tuple(f"{below}mpii_human_pose_v1_u12_1.mat" for below in ("", "*/", "*/*/"))
    names = {"train": "train", "val": "valid"}
    return tuple(dict.fromkeys(params.labels.replace("{split}", names[split]) for split in params.splits))


def _mpii_pictures(params: Any) -> int:
    counts = {"train": 14_679, "val": 2_729}  # in the label files; the release also has test images
    return 24_000 if params.labels is None else sum(counts[split] for split in params.splits)


FACTS = Facts(
    needs=(
        Need(_mpii_labels, "annotations (mpii_human_pose_v1_u12_2.zip, or the files of `labels`)"),
        Need(("images/*.*", "images/*/*.*"), "photographs", _mpii_pictures),
    ),
    cost=Cost(480, RECORD_BYTES, "images/*.jpg"),
    published=(
        Published(
            "train",
            "samples",
            29_116,
            (Explanation("people without any joint are left out", fewer=300),),
            lambda params: params.labels is None,
        ),
        Published("train", "samples", 22_246, when=lambda params: params.labels is not None),
        Published("val", "samples", 2_958, when=lambda params: params.labels is not None),
    ),
)
