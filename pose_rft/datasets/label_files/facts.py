"""Known facts about label files: published counts.

Counts are from HMR2.0's evaluation files, under their common names.
"""

from pose_rft.datasets.common.facts import Facts, Published

FACTS = Facts(
    published=(  # the evaluation files of HMR2.0, under their common names
        Published("h36m_val_p2", "samples", 27_558),
        Published("3dpw_test", "samples", 35_515),
    ),
)
