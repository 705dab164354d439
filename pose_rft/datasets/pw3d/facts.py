"""Known facts about 3DPW: the files of a complete copy, the conversion cost, and published counts.

Counts are from SPIN and VIBE.
"""

from pose_rft.datasets.common.facts import RECORD_BYTES, Cost, Explanation, Facts, Need, Published, by_split

FACTS = Facts(
    needs=(
        Need("sequenceFiles/*/*.pkl", "sequences (sequenceFiles.zip)", by_split(train=24, validation=12, test=24)),
        Need("imageFiles/*", "picture folders (imageFiles.zip)", by_split(train=24, validation=12, test=24)),
    ),
    cost=Cost(200, RECORD_BYTES, "imageFiles/*/*.jpg"),
    published=(
        Published("train", "sequences", 24),
        Published("validation", "sequences", 12),
        Published("test", "sequences", 24),
        Published(
            "test",
            "samples",
            35_515,
            (Explanation("TCMR and VIBE count 34,561: tracks that they cut", fewer=954),),
        ),
    ),
    gendered_bodies=True,
)
