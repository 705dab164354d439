"""A miniature MPI-INF-3DHP in real formats: AVI videos, annot.mat (MAT v5), camera.calibration, NeuralAnnot fits.

All fourteen cameras are calibrated and annotated; only the eight commonly used chest-height cameras have videos. The
actor holds each pose for ten frames, the stride at which readers sample the release.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import MPI28
from pose_rft.datasets.mpi_inf_3dhp.files import CAMERAS, CHEST_CAMERAS, MM
from pose_rft.errors import PoseRftError
from pose_rft.io import video
from pose_rft.io.atomic import canonical_json, write_text
from pose_rft.render.steps import rounded
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.matlab_files import cell_column, write_v5
from pose_rft.sample.people import Person, Studio, View, fixed_view
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.scene import background
from pose_rft.seeds import numpy_rng

RELEASE = "mpi_inf_3dhp"
FITS = "MPI-INF-3DHP_SMPL_NeuralAnnot.json"
SUBJECTS = range(1, 9)
SEQUENCES = 2  # per subject
HOLD = 10  # frames per pose
FPS = 25
UNIVERSAL_HEIGHT = 1.7  # metres: `univ_annot3` scales every skeleton to one height
# Camera number as in the release → azimuth and elevation, degrees: chest-height cameras, then the higher ones.
STANDS = {
    **dict(
        zip(CHEST_CAMERAS, ((0, 4), (40, 2), (-40, 3), (75, 4), (-75, 2), (115, 3), (-115, 4), (175, 3)), strict=True)
    ),
    **{3: (20, 35), 9: (-20, 40), 10: (90, 38), 11: (-90, 36), 12: (160, 40), 13: (0, 70)},
}


@dataclass(frozen=True)
class Result:
    """fits: NeuralAnnot's entry for every frame of the sequence."""

    subject: int
    sequence: int
    fits: dict[str, dict[str, list[float]]]


def tasks(params: SampleParams, seed: int) -> list[Task]:
    sizes = params.mpi_inf_3dhp
    if sizes.train_sequences > SEQUENCES:
        raise PoseRftError(
            f"`sample.mpi_inf_3dhp` wants {sizes.train_sequences} sequences, the release has {SEQUENCES} per subject."
        )
    payloads = [(s, q, sizes.frames) for s in SUBJECTS for q in range(1, sizes.train_sequences + 1)]
    return [Task(RELEASE, i, p, p[2] * len(CHEST_CAMERAS)) for i, p in enumerate(payloads)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> Result:
    """Renders all cameras of one sequence."""
    subject, sequence, frames = task.payload
    folder = root / RELEASE / f"S{subject}" / f"Seq{sequence}"
    identity = studio.identity(numpy_rng(seed, "sample", RELEASE, "actor", subject, sequence))
    rng = numpy_rng(seed, "sample", RELEASE, subject, sequence)
    people = [studio.place(identity, sample_pose(rng), tuple(rng.uniform(-0.15, 0.15, 2))) for _ in range(frames)]
    views = [camera_view(seed, params.mpi_inf_3dhp.size, subject, sequence, camera) for camera in range(CAMERAS)]
    for camera in CHEST_CAMERAS:
        view = views[camera]
        room = background(rng, (view.height, view.width))
        pictures = [studio.shoot(rng, [person], view, room).image for person in people]
        held = [picture for picture in pictures for _ in range(HOLD)]
        video.encode(folder / "imageSequence" / f"video_{camera}.avi", held, FPS, "xvid")
    body = studio.body(identity.gender)
    world = np.stack([body.keypoints(person.vertices, person.joints, MPI28) for person in people])
    write_annotations(folder / "annot.mat", np.repeat(world, HOLD, axis=0), views)
    write_calibration(folder / "camera.calibration", views)
    return Result(subject, sequence, {str(f): _fit(people[f // HOLD]) for f in range(frames * HOLD)})


def finish(params: SampleParams, seed: int, results: Sequence[Result], root: Path) -> None:
    content: dict[str, dict[str, Any]] = {}
    for result in results:
        content.setdefault(str(result.subject), {})[str(result.sequence)] = result.fits
    write_text(root / RELEASE / FITS, canonical_json(content))


def camera_view(seed: int, size: int, subject: int, sequence: int, camera: int) -> View:
    """Returns a camera's view in a sequence; images are square."""
    azimuth, elevation = STANDS[camera]
    rng = numpy_rng(seed, "sample", RELEASE, "stand", subject, sequence, camera)
    turn, distance = rng.uniform(-8, 8), rng.uniform(3.2, 4.2)
    return fixed_view((size, size), azimuth + turn, elevation, distance, tall=rng.uniform(2.4, 2.7))


def write_annotations(path: Path, world: np.ndarray, views: Sequence[View]) -> None:
    """Writes annot.mat: world joints (N, 28, 3), metres, as seen by each camera in `views`."""
    seen = [view.to_camera(world.astype(np.float64)) for view in views]
    height = np.ptp(world[..., 1], axis=1).max()
    cells = {
        "annot2": [view.project(points) for view, points in zip(views, seen, strict=True)],
        "annot3": [points * MM for points in seen],
        "univ_annot3": [points * MM * UNIVERSAL_HEIGHT / height for points in seen],
    }
    write_v5(
        path,
        {
            **{
                name: cell_column([rounded(points.reshape(len(points), -1), 5) for points in cell])
                for name, cell in cells.items()
            },
            "cameras": np.arange(len(views), dtype=np.float64)[None],
            "frames": np.arange(len(world), dtype=np.float64)[:, None],
        },
    )


def write_calibration(path: Path, views: Sequence[View]) -> None:
    """Writes camera.calibration: a header line, then seven lines per camera; extrinsics in mm.

    The intrinsic and extrinsic lines end with a space, on which readers of the real files rely.
    """
    lines = ["Camera calibration of the miniature, in the layout of MPI-INF-3DHP"]
    for number, view in enumerate(views):
        K, extrinsic = np.eye(4), np.eye(4)
        K[:3, :3], extrinsic[:3, :3], extrinsic[:3, 3] = view.K, view.R, view.t * MM
        lines += [
            f"name          {number}",
            "  sensor      10 10",
            f"  size        {view.width} {view.height}",
            "  animated    0",
            f"  intrinsic   {_numbers(K)} ",
            f"  extrinsic   {_numbers(extrinsic)} ",
            "  radial      0",
        ]
    write_text(path, "\n".join(lines) + "\n")


def _numbers(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.9g}" for value in matrix.ravel())


def _fit(person: Person) -> dict[str, list[float]]:
    """Returns NeuralAnnot's entry: SMPL in the calibration's world frame, which is the sample's own; metres."""
    vectors = Rotation.from_matrix(person.rotations).as_rotvec()
    numbers = {"pose": vectors.ravel(), "shape": person.identity.betas, "trans": person.transl}
    return {name: rounded(value, 6).tolist() for name, value in numbers.items()}
