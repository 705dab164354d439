"""What is known of HMR2.0's tars beside its reader: nothing yet that a check could use."""

from pose_rft.datasets.common.facts import Facts

FACTS = Facts()
