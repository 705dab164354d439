"""Known facts about Human3.6M: the files of a complete copy, the conversion cost, and published counts.

Counts are from its metadata.xml and una-dinosauria's baseline.
"""

from collections.abc import Callable
from typing import Any

from pose_rft.datasets.common.facts import Cost, Explanation, Facts, Need, Patterns, Published

ARRAYS = ("annotation_body3d/fps*/h36m_*.npz",)  # each holds all videos of a split
VIDEOS = 600  # the most that such an array holds
MISSING_VIDEO = "S11 Directions of camera 54138969 is not in the release"


def _every(step: int) -> Callable[[Any], bool]:
    return lambda params: params.every == step


def _all_subjects(params: Any) -> bool:
    return params.subjects is None


def _all_subjects_every(step: int) -> Callable[[Any], bool]:
    return lambda params: _all_subjects(params) and params.every == step


def _h36m_videos(params: Any) -> int:
    known = {"train": (1, 5, 6, 7, 8), "p1": (9, 11), "p2": (9, 11)}
    cameras = {split: 1 if split == "p2" and "p1" not in params.splits else 4 for split in params.splits}
    subjects = {n: cameras[s] for s in params.splits for n in known[s] if n in (params.subjects or known[s])}
    missing = 11 in subjects and subjects[11] == 4  # the release lacks one video
    return sum(30 * count for count in subjects.values()) - missing


def _h36m_poses(kind: str) -> Patterns:
    folders = ("MyPoseFeatures/{}", "Poses_{}", "{}")
    return tuple(f"[Ss][0-9]*/{folder.format(kind)}/*.cdf" for folder in folders)


FACTS = Facts(
    needs=(
        Need("metadata.xml", "names, lengths and cameras (comes with anibali/h36m-fetch)"),
        Need(
            ("[Ss][0-9]*/Videos/*.mp4", "images/S[0-9]*/S[0-9]*_*"),
            "videos (Videos_S#.tgz), or folders of their frames as MMPose extracts them",
            _h36m_videos,
        ),
        Need(
            (*_h36m_poses("D3_Positions_mono"), *ARRAYS),
            "3D poses (Poses_D3_Positions_mono_S#.tgz, or MMPose's annotation_body3d)",
            _h36m_videos,
        ),
        Need(
            (*_h36m_poses("D2_Positions"), *ARRAYS),
            "2D poses (Poses_D2_Positions_S#.tgz, or MMPose's annotation_body3d)",
            _h36m_videos,
        ),
        Need("[Ss][0-9]*/MySegmentsMat/ground_truth_b?/*.mat", "person boxes (optional: else from 2D joints)", 0),
    ),
    cost=Cost(65, 82_000),
    published=(
        Published("train", "samples", 1_559_752, when=_all_subjects_every(1)),
        Published("train", "samples", 312_188, when=_all_subjects_every(5)),
        Published("train", "videos", 600, when=_all_subjects),
        Published("p1", "samples", 548_819, when=_all_subjects_every(1)),
        Published("p1", "samples", 109_867, when=_all_subjects_every(5)),
        Published("p1", "samples", 8_724, (Explanation(MISSING_VIDEO, fewer=29),), _all_subjects_every(64)),
        Published("p1", "videos", 239, when=_all_subjects),
        Published("p2", "samples", 27_558, when=_all_subjects_every(5)),
        Published("p2", "samples", 2_181, when=_all_subjects_every(64)),
        Published("p2", "videos", 60, when=_all_subjects),
    ),
    subjects_apart=True,
    reprojection=(0.01, 0.1),
)
