"""Known facts about EMDB: the files of a complete copy, the conversion cost, and published counts.

EMDB 1 is 17 sequences (zju3dv/GVHMR:hmr4d/dataset/emdb/utils.py lists them, with 24,117 frames in total). The number of
frames that show the person is not published, so sample counts are not compared.
"""

from pose_rft.datasets.common.facts import RECORD_BYTES, Cost, Facts, Need, Published

FACTS = Facts(
    needs=(
        Need("P*/*/*_data.pkl", "sequences (P0 to P9)", 17),
        Need("P*/*/images", "their picture folders", 17),
    ),
    cost=Cost(200, RECORD_BYTES, "P*/*/images/*.jpg"),
    published=(Published("test", "sequences", 17),),
    gendered_bodies=True,
)
