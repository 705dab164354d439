"""What is known of label files: what a complete copy holds, what converting it costs, and published counts.

Counts are from HMR2.0's evaluation files, by the names that peers give them.
"""

from pose_rft.datasets.common.facts import Facts, Published

FACTS = Facts(
    published=(  # the evaluation files of HMR2.0, by the names that peers give them
        Published("h36m_val_p2", "samples", 27_558),
        Published("3dpw_test", "samples", 35_515),
    ),
)
