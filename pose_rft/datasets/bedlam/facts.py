"""Known facts about BEDLAM: the files of a complete copy, the conversion cost, and published counts.

Counts are from its download page.
"""

from pose_rft.datasets.common.facts import RECORD_BYTES, Cost, Explanation, Facts, Need, Published

FACTS = Facts(
    needs=(
        Need("training_labels/all_npz_12_training/*.npz", "labels (all_npz_12_training.zip)", 26),
        Need("training_images/*/png", "picture folders (26 tars)", 26),
    ),
    cost=Cost(120, RECORD_BYTES, "training_images/*/png/*/*.png"),
    published=(
        Published(
            "train",
            "folders",
            26,
            (Explanation("scenes in which nobody is large and free enough to be described", fewer=4, more=6),),
        ),
    ),
)
