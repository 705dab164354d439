"""Known facts about MPI-INF-3DHP: the files of a complete copy, the conversion cost, and published counts.

Counts are from margipose's sequence list, SPIN and akanazawa/hmr#45.
"""

from collections.abc import Callable
from typing import Any

from pose_rft.datasets.common.facts import Cost, Explanation, Facts, Need, Published, by_split

OWN_TENTH = Explanation(
    "which tenth is kept depends on where counting starts: SPIN's own second run gave 96,719", fewer=500, more=500
)


def _every(step: int) -> Callable[[Any], bool]:
    return lambda params: params.every == step


FACTS = Facts(
    needs=(
        Need("S[1-8]/Seq[12]/annot.mat", "poses of 8 subjects, 2 sequences each", by_split(train=16)),
        Need("S[1-8]/Seq[12]/camera.calibration", "cameras", by_split(train=16)),
        Need(
            (
                *("S[1-8]/Seq[12]/imageSequence/video_*", "S[1-8]/Seq[12]/imageFrames/video_*"),
                *("images/S[1-8]_Seq[12]_Cam*.jpg", "S[1-8]_Seq[12]_Cam*.jpg"),
            ),
            "videos or frames of the 8 cameras at chest height",
            by_split(train=128),
        ),
        Need("mpi_inf_3dhp_test_set/TS[1-6]/annot_data.mat", "test set", by_split(test=6)),
    ),
    cost=Cost(14, 236_000),
    published=(
        Published(
            "train",
            "samples",
            1_052_736,
            (Explanation("frames with a joint outside the picture are left out, as SPIN does", fewer=100_000),),
            _every(1),
        ),
        Published("train", "samples", 96_507, (OWN_TENTH,), _every(10)),
        Published("train", "sequences", 16),
        Published("train", "videos", 128),
        Published(
            "test",
            "samples",
            2_929,
            (Explanation("SPIN keeps 2,875 whose joints all lie inside the picture", fewer=54),),
        ),
        Published("test", "sequences", 6),
    ),
    subjects_apart=True,
    reprojection=(1.0, 20.0),
)
