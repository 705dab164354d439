"""Human3.6M's files in the release's formats: metadata.xml, CDF poses, mask boxes. See `datasets/h36m/metadata.py`.

The miniature keeps the irregular spelling of the real sequence names, so a reader that constructs names instead of
looking them up fails on it, but has its own sequence lengths, image sizes and cameras.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from cdflib import cdfwrite
from scipy.spatial.transform import Rotation

from pose_rft.datasets.h36m.metadata import ACTIONS, CAMERAS, EXTRINSICS, INTRINSICS, MM, POSES_PER_MOCAP, SUBJECTS
from pose_rft.io.atomic import write_text
from pose_rft.record import Camera
from pose_rft.render.steps import rounded
from pose_rft.sample.matlab_files import write_v73

ACTION_NAMES = (
    *("Miscellaneous", "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "TakingPhoto", "Waiting", "Walking", "WalkingDog", "WalkingTogether"),
)
# File-name spellings of actions that differ from the action's name, and the exceptions of S1.
SPELLING = {12: "Photo", 15: "WalkDog", 16: "WalkTogether"}
SPELLING_OF_S1 = {12: "TakingPhoto", 15: "WalkingDog"}
# Suffixes other than the usual " 1" and "", from the real metadata: (subject, action, subaction) → suffix.
SUFFIX = {
    **{(1, 4, 1): " 2", (1, 9, 2): " 2", (1, 10, 1): " 2", (1, 10, 2): ""},
    **{(5, 2, 2): " 2", (5, 3, 1): " 2", (5, 3, 2): " 3", (5, 5, 2): " 2", (5, 10, 1): "", (5, 10, 2): " 1"},
    **{(5, 12, 1): "", (5, 12, 2): " 2", (5, 13, 2): " 2", (6, 4, 2): " 2", (6, 7, 1): " 2", (6, 9, 2): " 2"},
    **{(6, 12, 1): "", (6, 12, 2): " 1", (6, 13, 1): " 3", (7, 6, 1): " 2", (7, 10, 1): "", (7, 10, 2): " 1"},
    **{(7, 12, 1): "", (7, 12, 2): " 1", (7, 13, 2): " 2", (7, 14, 2): " 2", (8, 10, 1): "", (8, 10, 2): " 1"},
    **{(8, 16, 2): " 2", (9, 3, 2): " 2", (9, 10, 1): "", (9, 10, 2): " 1", (11, 3, 2): " 2", (11, 5, 1): " 2"},
    **{(11, 6, 1): " 3", (11, 6, 2): " 2", (11, 10, 1): "", (11, 10, 2): " 1", (11, 11, 1): " 2"},
}
ACTORS = [f"Actor{subject}" for subject in SUBJECTS]

# (subject, action, subaction) → (poses, frames of each camera)
Lengths = Mapping[tuple[int, int, int], tuple[int, tuple[int, int, int, int]]]


def sequence_name(subject: int, action: int, subaction: int) -> str:
    """Returns the stem of a sequence's files, spelled as in the real metadata for the subjects with public poses."""
    if action == 1:
        return "_ALL 1" if subaction == 1 else "_ALL"
    name = (SPELLING_OF_S1 if subject == 1 else {}).get(action) or SPELLING.get(action) or ACTION_NAMES[action - 1]
    return name + SUFFIX.get((subject, action, subaction), " 1" if subaction == 1 else "")


def write_metadata(
    path: Path, lengths: Lengths, sizes: Mapping[int, Sequence[tuple[int, int]]], w0: np.ndarray
) -> None:
    """Writes metadata.xml.

    Args:
        lengths: (subject, action, subaction) → poses and frames per camera; missing keys mean none.
        sizes: subject → (width, height) px of the four cameras; w0: see `camera_numbers`.
    """
    header = ["Action", "subaction", *(f"S{subject}" for subject in SUBJECTS)]
    mapping = [header]
    frames: list[list[str]] = [[""] for _ in SUBJECTS]
    for action in ACTIONS:
        for subaction in (1, 2):
            names = [sequence_name(subject, action, subaction) for subject in SUBJECTS]
            mapping.append([str(action), str(subaction), *names])
            for row, subject in zip(frames, SUBJECTS, strict=True):
                poses, cameras = lengths.get((subject, action, subaction), (0, (0, 0, 0, 0)))
                # Motion capture runs at four times the frame rate; its length is not a multiple of four.
                row.append(_matrix([[*cameras, poses * POSES_PER_MOCAP + (3 if poses else 0)]]))
    mapping.append([*header[:2], *ACTORS])
    mapping.append(["", "", *(_matrix([(h, w) for w, h in sizes[subject]]) for subject in SUBJECTS)])
    ids = "".join(f"<item>{camera}</item>" for camera in CAMERAS)
    actions = "".join(f"<item>{name}</item>" for name in ACTION_NAMES)
    write_text(
        path,
        '<?xml version="1.0" encoding="utf-8"?>\n<a>\n'
        f"   <mapping>\n{_rows(mapping)}   </mapping>\n   <frames>\n{_rows(frames)}   </frames>\n"
        f"   <train_subjects>[1 7 8 9 11]</train_subjects>\n   <w0>{_matrix([w0])}</w0>\n"
        f"   <dbcameras><index2id>{ids}</index2id></dbcameras>\n   <actionnames>{actions}</actionnames>\n</a>\n",
    )


def camera_numbers(cameras: Mapping[tuple[int, int], Camera]) -> np.ndarray:
    """Returns w0 (300,): Euler angles and centre (mm) per camera and subject, then K and distortion per camera.

    Args:
        cameras: (subject, camera index) → camera; the intrinsics are those of the first subject.
    """
    extrinsics = [_extrinsic(cameras[subject, camera]) for camera in range(len(CAMERAS)) for subject in SUBJECTS]
    intrinsics = []
    for camera in range(len(CAMERAS)):
        lens = cameras[SUBJECTS[0], camera]
        assert lens.distortion is not None
        intrinsics.append([lens.K[0, 0], lens.K[1, 1], lens.K[0, 2], lens.K[1, 2], *lens.distortion])
    assert np.shape(extrinsics)[1] == EXTRINSICS and np.shape(intrinsics)[1] == INTRINSICS
    return rounded(np.concatenate([np.ravel(extrinsics), np.ravel(intrinsics)]), 9)


def write_poses(path: Path, poses: np.ndarray) -> None:
    """Writes a CDF file whose only variable `Pose` is one float record: poses (T, 32, 2) px or (T, 32, 3) mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(poses, np.float32).reshape(1, len(poses), -1)
    specification = {"Majority": "row_major", "Encoding": 6, "Checksum": False, "rDim_sizes": [], "Compressed": 0}
    variable = {
        **{"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Var_Type": "zVariable"},
        **{"Dim_Sizes": list(rows.shape[1:]), "Compress": 0},  # compressed bytes would depend on the zlib build
    }
    file = cdfwrite.CDF(str(path), cdf_spec=specification, delete=True)
    file.write_var(variable, var_data=rows)
    file.close()


def write_mask_boxes(path: Path, boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int]) -> None:
    """Writes a ground_truth_bb file: a mask per frame that is 1 inside the box (x0, y0, x1, y1) px, end excluded.

    Consecutive equal boxes share one stored mask, which a cell array of references allows. size: (width, height).
    """
    width, height = size
    masks: list[np.ndarray] = []
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        if i and boxes[i] == boxes[i - 1]:
            masks.append(masks[-1])
            continue
        mask = np.zeros((height, width), np.uint8)
        mask[y0:y1, x0:x1] = 1
        masks.append(mask)
    write_v73(path, {"Masks": masks})


def _extrinsic(camera: Camera) -> np.ndarray:
    assert camera.R is not None and camera.t is not None
    return np.concatenate([Rotation.from_matrix(camera.R).as_euler("XYZ"), -camera.R.T @ camera.t * MM])


def _matrix(rows: Sequence[Sequence[float]] | Sequence[np.ndarray]) -> str:
    return "[" + ";".join(" ".join(f"{value:.15g}" for value in row) for row in rows) + "]"


def _rows(table: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str]) -> str:
        return "".join(f"         <td>{cell}</td>\n" if cell else "         <td/>\n" for cell in cells)

    return "".join(f"      <tr>\n{row(cells)}      </tr>\n" for cells in table)
