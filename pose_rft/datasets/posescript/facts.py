"""Known facts about PoseScript: the files of a complete copy, the conversion cost, and published counts.

Counts are from its release notes.
"""

from pose_rft.datasets.common.facts import ALL, RECORD_BYTES, Cost, Explanation, Facts, Need, Published

FOLDERS = ("", "posescript_release/")


FACTS = Facts(
    needs=(
        Need(
            tuple(f"{below}ids_2_dataset_sequence_and_frame_index*.json" for below in FOLDERS),
            "where poses come from (posescript_release_v2.zip)",
        ),
        Need(tuple(f"{below}*human*.json" for below in FOLDERS), "human captions"),
        Need(
            ("*/*/*_poses.npz", "*/*/*_stageii.npz"),
            "AMASS, SMPL+H G or SMPL-X, 19 subsets",
            10_000,
            other="amass",
        ),
    ),
    cost=Cost(1_200, RECORD_BYTES),
    published=(
        Published(
            ALL,
            "samples",
            100_000,
            (Explanation("v1 of the release has 20,000 poses", fewer=80_000),),
            lambda params: "automatic" in params.kinds and len(params.splits) == 3,
        ),
        Published(
            ALL,
            "with_human_caption",
            6_293,
            (Explanation("v1 of the release has 3,891 to 4,900 human captions", fewer=2_402),),
            lambda params: "human" in params.kinds and len(params.splits) == 3,
        ),
    ),
)
