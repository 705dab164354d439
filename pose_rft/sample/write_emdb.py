"""A miniature EMDB: images and pickles with one person per sequence, gendered SMPL in the world frame.

`P1/14_outdoor_climb/{images/00000.jpg, P1_14_outdoor_climb_data.pkl}`. Written only if `sample.emdb` is set. All
sequences but the last belong to EMDB 1, the last only to EMDB 2; each ends with a frame that is marked as invalid.
Source: eth-ait/emdb:dataset.md.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.io.atomic import write_bytes
from pose_rft.render.steps import rounded
from pose_rft.sample.clothes import dressed
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.people import Gender, Shot, Studio, encode
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.scene import background
from pose_rft.sample.write_pw3d import handheld_view, picture_size
from pose_rft.seeds import numpy_rng

RELEASE = "emdb"
NAMES = ("climb", "hug_tree", "workout", "soccer_warmup", "dancing", "rom", "skateboard", "handstand")
MARGIN = 0.1  # margin on each side of a box, relative to the extent of the joints
PROTOCOL = 4  # a Python 3 protocol, unlike 3DPW's


def tasks(params: SampleParams, seed: int) -> list[Task]:
    if params.emdb is None:
        return []
    count, frames = params.emdb.sequences, params.emdb.frames
    return [Task(RELEASE, index, (index, index < count), frames) for index in range(count + 1)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> None:
    """Writes the images and the pickle of one sequence."""
    assert params.emdb is not None
    index, first = task.payload
    subject, sequence = f"P{index % 10}", f"{10 + index}_outdoor_{NAMES[index % len(NAMES)]}"
    rng = numpy_rng(seed, "sample", RELEASE, sequence)
    gender: Gender = "female" if index % 2 else "male"
    who = studio.identity(rng, gender, dressed)
    size = picture_size(params.emdb.size, landscape=False)
    place = background(rng, (size[1], size[0]))
    shots = []
    for _ in range(params.emdb.frames):
        person = studio.place(who, sample_pose(rng))
        shots.append(studio.shoot(rng, [person], handheld_view(rng, [person], size), place, occluder=0.2))
    shots += shots[-1:]
    folder = root / RELEASE / subject / sequence
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for frame, shot in enumerate(shots):
        (folder / "images" / f"{frame:05d}.jpg").write_bytes(encode(shot.image))
    content = sequence_content(f"{subject}_{sequence}", shots, first)
    write_bytes(folder / f"{subject}_{sequence}_data.pkl", pickle.dumps(content, PROTOCOL))


def finish(params: SampleParams, seed: int, results: Sequence[None], root: Path) -> None:
    """Every sequence has its own file; there is nothing to gather."""


def sequence_content(name: str, shots: Sequence[Shot], first: bool) -> dict[str, Any]:
    """Returns all fields of a sequence's pickle; the last frame is invalid. first: in EMDB 1, else in EMDB 2."""
    people = [shot.seen[0].person for shot in shots]
    poses = rounded([Rotation.from_matrix(p.rotations).as_rotvec().ravel() for p in people], 8)
    cameras = np.tile(np.eye(4), (len(shots), 1, 1))
    for frame, shot in enumerate(shots):
        cameras[frame, :3, :3], cameras[frame, :3, 3] = shot.view.R, shot.view.t
    good = np.arange(len(shots)) < len(shots) - 1
    joints = rounded([shot.seen[0].joints2d for shot in shots], 6)
    low, high = joints.min(1), joints.max(1)
    return {
        "gender": people[0].identity.gender,
        "name": name,
        "emdb1": first,
        "emdb2": not first,
        "n_frames": len(shots),
        "good_frames_mask": good,
        "camera": {
            "intrinsics": shots[0].view.K,
            "extrinsics": cameras,
            "width": shots[0].view.width,
            "height": shots[0].view.height,
        },
        "smpl": {
            "poses_root": poses[:, :3],
            "poses_body": poses[:, 3:],
            "trans": np.stack([p.transl for p in people]),
            "betas": people[0].identity.betas,
        },
        "kp2d": joints,
        "bboxes": {
            "bboxes": np.concatenate([low - MARGIN * (high - low), high + MARGIN * (high - low)], axis=1),
            "invalid_idxs": np.flatnonzero(~good),
        },
    }
