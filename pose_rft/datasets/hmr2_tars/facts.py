"""Known facts about HMR2.0's tars: none yet that a check could use."""

from pose_rft.datasets.common.facts import Facts

FACTS = Facts()
