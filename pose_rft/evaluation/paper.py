"""The numbers printed in the paper (arXiv 2508.07804, tables 1-3), to compare with ours.

MPJPE and PA-MPJPE in mm; recall in percent at K = 5, 10, 20. Rows of other methods are as the paper quotes them; they
mix protocols (UniPose's random-pool row quotes ChatPose's whole-set numbers, for example).
"""

from typing import NamedTuple

# method: 3DPW MPJPE, PA-MPJPE, Human3.6M MPJPE, PA-MPJPE.
TABLE_1: dict[str, tuple[float | None, float | None, float | None, float | None]] = {
    "HMR": (130.0, 76.7, 88.0, 56.8),
    "PyMAF": (92.8, 58.9, 57.7, 40.5),
    "SMPLer": (73.7, 43.4, 45.2, 32.4),
    "HMR2.0": (70.0, 44.5, 44.8, 33.6),
    "Zolly": (76.2, 47.9, 49.4, 32.3),
    "MEGA": (67.5, 41.0, None, None),
    "TokenHMR": (71.0, 44.3, None, None),
    "ChatPose": (163.6, 81.9, 126.0, 82.4),
    "UniPose": (94.7, 59.1, 69.2, 41.8),
    "Pose-RFT": (85.9, 51.6, 63.0, 44.5),
}

Triple = tuple[float, float, float]


class RecallRow(NamedTuple):
    """T2P and P2T with the whole test set as the pool, then with random pools; None where the paper has no number."""

    full_t2p: Triple | None
    full_p2t: Triple | None
    random_t2p: Triple | None
    random_p2t: Triple | None


TABLE_2 = {
    "PoseScript": RecallRow((40.4, 52.3, 65.0), (41.4, 54.1, 65.9), (73.3, 82.5, 89.4), (70.0, 82.5, 87.4)),
    "ChatPose": RecallRow((17.6, 25.3, 35.8), (28.0, 39.0, 54.4), (39.9, 50.6, 58.7), (56.1, 65.3, 72.5)),
    "ChatHuman": RecallRow((41.8, 52.6, 65.1), (42.1, 52.3, 66.5), None, None),
    "UniPose": RecallRow(None, None, (73.7, 82.4, 89.6), (70.9, 80.5, 89.6)),
    "Pose-RFT": RecallRow((42.2, 53.0, 65.5), (45.3, 57.2, 70.4), (71.8, 82.6, 88.7), (74.6, 86.5, 91.5)),
}

# The paper states pools of 32. At 32, chance is 62.5 % at K = 20, more than the 58.7 printed for ChatPose, and the
# whole-set columns resampled to 200 match the printed numbers within 1.5 points; so they are compared with our 200.
RANDOM_POOL_THAT_FITS = 200

# run: 3DPW MPJPE, PA-MPJPE, mean recall (K = 5, 10, 20; whole set) T2P, P2T.
TABLE_3 = {
    "sft_point": (90.4, 57.1, 36.2, 41.5),
    "sft_gaussian": (91.4, 59.2, 37.4, 42.0),
    "rft_hygrpo": (85.9, 51.6, 53.6, 57.6),
}
