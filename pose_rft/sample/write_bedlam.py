"""A miniature BEDLAM: PNG images and one npz of labels per folder, with all columns of the real files.

`training_images/FOLDER/png/seq_000000/seq_000000_0000.png` (6 fps folders number every fifth frame) and
`training_labels/all_npz_12_training/FOLDER.npz`. One folder is a close-up scene: labelled in portrait, stored rotated
counter-clockwise. Bodies are in SMPL-X format: 22 body joints, fingers at rest, 11 shape parameters.
Source: pixelite1201/BEDLAM data_processing/ReadMe.md and df_full_body.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import SMPLX127
from pose_rft.io.atomic import write_bytes
from pose_rft.render.steps import rounded
from pose_rft.sample.clothes import dressed
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.people import Seen, Studio, View, encode, framed_view
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.scene import background
from pose_rft.sample.stored import npz
from pose_rft.sample.varied import is_labelled, varied_shot
from pose_rft.seeds import numpy_rng

RELEASE = "bedlam"
FRAMES = 10  # images per sequence
STEP = 5  # between frame numbers in the 6 fps folders
# (folder, close-up scene, may show two people)
TRAIN = (
    ("20221010_3-10_500_batch01hand_zoom_suburb_d_6fps", False, True),
    ("20221011_1_250_batch01hand_closeup_suburb_a_6fps", True, False),
    ("20221013_3_250_batch01hand_static_bigOffice_6fps", False, True),
    ("20221010_3_1000_batch01hand_6fps", False, True),
)
VAL = (
    ("20221018_3-8_250_batch01hand_6fps", False, True),
    ("20221019_3-8_250_highbmihand_orbit_stadium_6fps", False, True),
)
PROJECTED_VERTICES = 437
PLAIN_COLUMNS = (
    "imgname", "center", "scale", "pose_cam", "pose_world", "shape", "trans_cam", "trans_world", "gtkps", "cam_int",
    "cam_ext", "gender", "proj_verts", "sub",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One sequence of a folder."""

    folder: str
    closeup: bool
    two: bool
    number: int
    frames: int
    training: bool


def tasks(params: SampleParams, seed: int) -> list[Task]:
    pieces = []
    for folders, count in ((TRAIN, params.bedlam.train), (VAL, params.bedlam.val)):
        for start in range(0, count, FRAMES):
            number, turn = divmod(start // FRAMES, len(folders))
            folder, closeup, two = folders[turn]
            pieces.append(Piece(folder, closeup, two, number, min(FRAMES, count - start), folders is TRAIN))
    return [Task(RELEASE, i, (piece,), piece.frames) for i, piece in enumerate(pieces)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> tuple[str, list[dict[str, Any]]]:
    """Renders one sequence: the same people and scene, a new pose and camera in each frame. In varied sequences only
    the main person stays the same."""
    (piece,) = task.payload
    rng = numpy_rng(seed, "sample", RELEASE, piece.folder, piece.number)
    varied = piece.training and rng.uniform() < params.varied
    long, short = -(-params.bedlam.size * 16 // 9 // 2) * 2, params.bedlam.size
    width, height = (short, long) if piece.closeup else (long, short)
    cast = [studio.identity(rng) for _ in range(1 + (piece.two and rng.uniform() < params.two_people))]
    if varied:
        cast = [studio.identity(rng, dress=dressed)]
    backdrop = background(rng, (height, width))
    folder = root / RELEASE / "training_images" / piece.folder / "png" / f"seq_{piece.number:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for frame in range(piece.frames):
        if varied:
            shot = varied_shot(rng, studio, (width, height), who=cast[0])
        else:
            places = [(0.0, 0.0)] if len(cast) == 1 else [(-0.7, 0.0), (0.7, rng.uniform(-0.3, 0.3))]
            people = [studio.place(who, sample_pose(rng), at) for who, at in zip(cast, places, strict=True)]
            view = framed_view(rng, people, (width, height))
            shot = studio.shoot(rng, people, view, backdrop, noise=0.0)
        name = f"seq_{piece.number:06d}_{frame * STEP:04d}.png"
        image = np.rot90(shot.image, k=1) if piece.closeup else shot.image
        (folder / name).write_bytes(encode(np.ascontiguousarray(image), "png"))
        for number, seen in enumerate(shot.seen):
            if is_labelled(seen):
                subject = f"rp_{piece.folder[:8]}_{piece.number:04d}_{number}"
                rows.append(_row(f"{folder.name}/{name}", subject, seen, shot.view, studio))
    return piece.folder, rows


def finish(params: SampleParams, seed: int, results: Sequence[tuple[str, list[dict[str, Any]]]], root: Path) -> None:
    by_folder: dict[str, list[dict[str, Any]]] = {}
    for folder, rows in results:
        by_folder.setdefault(folder, []).extend(rows)
    labels = root / RELEASE / "training_labels" / "all_npz_12_training"
    for folder, rows in by_folder.items():
        columns: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in PLAIN_COLUMNS}
        motion = np.empty(len(rows), object)  # the only column of the real files that needs pickle
        motion[:] = [row["motion_info"] for row in rows]
        write_bytes(labels / f"{folder}.npz", npz({**columns, "motion_info": motion}))


def _row(name: str, subject: str, seen: Seen, view: View, studio: Studio) -> dict[str, Any]:
    person = seen.person
    body = studio.body(person.identity.gender)
    joints2d = view.project(body.keypoints(seen.vertices, seen.joints, SMPLX127))
    inside = joints2d[:22][((joints2d[:22] >= 0) & (joints2d[:22] < view.size)).all(1)]
    low, high = inside.min(0), inside.max(0)
    step = max(len(seen.vertices) // PROJECTED_VERTICES, 1)
    extrinsic = np.eye(4)
    extrinsic[:3, :3], extrinsic[:3, 3] = view.R, view.t
    projected = np.concatenate(
        [view.project(seen.vertices[::step][:PROJECTED_VERTICES]), np.ones((PROJECTED_VERTICES, 1))], axis=1
    )
    return {
        "imgname": name,
        "center": (low + high) / 2,
        "scale": 1.2 * (high - low).max() / 200,
        "pose_cam": smplx_pose(seen.rotations),
        "pose_world": smplx_pose(person.rotations),
        "shape": np.append(person.identity.betas, 0.0),
        "trans_cam": seen.transl - view.t,
        "trans_world": person.transl,
        "gtkps": np.concatenate([joints2d, np.ones((len(joints2d), 1))], axis=1),
        "cam_int": view.K,
        "cam_ext": extrinsic,
        "gender": person.identity.gender,
        "proj_verts": projected,
        "motion_info": "sample",
        "sub": subject,
    }


def smplx_pose(rotations: np.ndarray) -> np.ndarray:
    """Converts SMPL rotations (24, 3, 3) to SMPL-X's 165 axis-angle numbers: 22 body joints; face, fingers at rest."""
    pose = np.zeros(165)
    pose[:66] = rounded(Rotation.from_matrix(rotations[:22]).as_rotvec().reshape(-1), 8)
    return pose
