"""A miniature Human3.6M in real file formats: H.264 videos, CDF poses, mask boxes, metadata.xml, NeuralAnnot fits.

An actor holds each pose for five frames, the stride at which readers sample the release: no image is rendered that is
never read, and every pose row matches its frame. Training subjects are filmed by all four cameras, test subjects by the
frontal one (metadata.xml declares no frames for the others). Images are distorted by the lens too, so the distorted 2D
labels are exact; the fits are not (`imperfect_fits`). S11 has no masks. World axes: z up, mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import H36M_MODEL, distort_h36m, project
from pose_rft.body.frames import world_to_camera_smpl
from pose_rft.body.joints import H36M32
from pose_rft.datasets.h36m.metadata import CAMERAS, MM, SUBJECTS
from pose_rft.datasets.h36m.reader import MASK_SCALE, SPLIT_SUBJECTS
from pose_rft.errors import PoseRftError
from pose_rft.io import video
from pose_rft.io.atomic import canonical_json, write_text
from pose_rft.record import Camera
from pose_rft.render.steps import rounded
from pose_rft.sample.h36m_files import (
    camera_numbers,
    sequence_name,
    write_mask_boxes,
    write_metadata,
    write_poses,
)
from pose_rft.sample.imperfect_fits import Fit, fit, habit
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.people import Shot, Size, Studio, View, fixed_view
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.scene import background
from pose_rft.seeds import numpy_rng

RELEASE = "h36m"
FITS = "Human36M_subject{}_SMPL_NeuralAnnot.json"
HOLD = 5  # frames per pose
FPS = 50
FRONTAL = 3  # index of 60457274
WITHOUT_MASKS = 11
# Azimuth and elevation (degrees), distance (metres), height of the field of view at the actor (metres).
STANDS = ((55.0, 6.0, 4.6, 2.45), (-55.0, 8.0, 5.2, 2.5), (125.0, 6.0, 4.9, 2.45), (0.0, 5.0, 4.4, 2.35))
# k1, k2, k3, p1, p2 of wide-angle lenses with 1-2 px of distortion, like the real ones.
LENSES = (
    (-0.20, 0.24, -0.003, -0.0014, -0.0010),
    (-0.19, 0.23, 0.006, -0.0026, -0.0015),
    (-0.21, 0.25, -0.002, -0.0008, 0.0014),
    (-0.20, 0.21, -0.009, -0.0018, -0.0006),
)
GENEROUS = 1.2 / MASK_SCALE  # the release's mask boxes leave a margin around the person
TALL_SUBJECTS = (4, 7, 10)  # all four of their cameras have two more rows than columns; else only the first and last
# Sequences in rendering order, starting with those that readers must treat specially.
SPECIAL = ((5, 2), (2, 1), (13, 1), (12, 1), (10, 2))
SEQUENCES = (*SPECIAL, *((a, s) for s in (1, 2) for a in range(2, 17) if (a, s) not in SPECIAL))
# The sample's world is y up, Human3.6M's is z up.
TO_RELEASE = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class Result:
    """poses: number of rows in the CDF files; fits: NeuralAnnot's entry for every frame."""

    subject: int
    action: int
    subaction: int
    poses: int
    fits: dict[str, dict[str, list[float]]]


def tasks(params: SampleParams, seed: int) -> list[Task]:
    sizes = params.h36m
    if (most := max(sizes.train_sequences, sizes.test_sequences)) > len(SEQUENCES):
        raise PoseRftError(f"`sample.h36m` asks for {most} sequences per subject; the release has {len(SEQUENCES)}.")
    pieces = [(subject, sizes.train_sequences, sizes.frames) for subject in SPLIT_SUBJECTS["train"]]
    pieces += [(subject, sizes.test_sequences, sizes.test_frames) for subject in SPLIT_SUBJECTS["p2"]]
    payloads = [(subject, *sequence, frames) for subject, count, frames in pieces for sequence in SEQUENCES[:count]]
    return [Task(RELEASE, i, p, p[3] * len(cameras_of(p[0]))) for i, p in enumerate(payloads)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> Result:
    """Renders all cameras of one sequence."""
    subject, action, subaction, frames = task.payload
    folder = root / RELEASE / f"S{subject}"
    name = sequence_name(subject, action, subaction)
    identity = studio.identity(numpy_rng(seed, "sample", RELEASE, "actor", subject))
    rng = numpy_rng(seed, "sample", RELEASE, subject, action, subaction)
    people = [studio.place(identity, sample_pose(rng), tuple(rng.uniform(-0.15, 0.15, 2))) for _ in range(frames)]
    for camera in cameras_of(subject):
        stand = camera_stand(seed, params.h36m.size, subject, camera)
        size = (stand.view.width, stand.view.height)
        room = background(numpy_rng(seed, "sample", RELEASE, "room", camera), (size[1], size[0]))
        shots = [studio.shoot(rng, [person], stand.view, room) for person in people]
        stem = f"{name}.{CAMERAS[camera]}"
        pictures = [stand.through_lens(shot.image) for shot in shots]
        # The video is one frame longer than the poses, as in the release.
        video.encode(folder / "Videos" / f"{stem}.mp4", _held(pictures) + pictures[-1:], FPS, "h264")
        joints = np.stack([_joints(shot, studio) for shot in shots])
        poses = folder / "MyPoseFeatures"
        write_poses(poses / "D3_Positions_mono" / f"{stem}.cdf", np.repeat(joints * MM, HOLD, axis=0))
        write_poses(poses / "D2_Positions" / f"{stem}.cdf", np.repeat(project(joints, stand.camera), HOLD, axis=0))
        if subject != WITHOUT_MASKS:
            boxes = [_mask_box(shot, size) for shot in shots]
            path = folder / "MySegmentsMat" / "ground_truth_bb" / f"{stem}.mat"
            write_mask_boxes(path, _held(boxes), size)
        if camera == FRONTAL:
            world = (joints - stand.camera.t) @ stand.camera.R * MM
            write_poses(poses / "D3_Positions" / f"{name}.cdf", np.repeat(world, HOLD, axis=0))
    ways = habit(numpy_rng(seed, "sample", RELEASE, "fits", subject))
    err = numpy_rng(seed, "sample", RELEASE, "fits", subject, action, subaction)
    bodies = [fit(person, ways, err, studio.body(identity.gender)) for person in people]
    fits = {str(frame): _entry(bodies[frame // HOLD]) for frame in range(frames * HOLD)}
    return Result(subject, action, subaction, frames * HOLD, fits)


def finish(params: SampleParams, seed: int, results: Sequence[Result], root: Path) -> None:
    lengths = {}
    fits: dict[int, dict[str, dict[str, Any]]] = {}
    for result in results:
        present = cameras_of(result.subject)
        frames = tuple(result.poses + 1 if camera in present else 0 for camera in range(len(CAMERAS)))
        lengths[result.subject, result.action, result.subaction] = (result.poses, frames)
        fits.setdefault(result.subject, {}).setdefault(str(result.action), {})[str(result.subaction)] = result.fits
    stands = {(s, c): camera_stand(seed, params.h36m.size, s, c) for s in SUBJECTS for c in range(len(CAMERAS))}
    sizes = {s: [(v.width, v.height) for c in range(len(CAMERAS)) for v in [stands[s, c].view]] for s in SUBJECTS}
    w0 = camera_numbers({key: stand.camera for key, stand in stands.items()})
    write_metadata(root / RELEASE / "metadata.xml", lengths, sizes, w0)  # type: ignore[arg-type]
    for subject, content in fits.items():
        write_text(root / RELEASE / FITS.format(subject), canonical_json(content))


def cameras_of(subject: int) -> tuple[int, ...]:
    """Returns the cameras that film a subject: all four for training subjects, the frontal one for test subjects."""
    return tuple(range(len(CAMERAS))) if subject in SPLIT_SUBJECTS["train"] else (FRONTAL,)


@dataclass(frozen=True, eq=False)
class Stand:
    """A camera on a stand: `view` in the sample's world, undistorted; `camera` in the release's, with distortion."""

    view: View
    camera: Camera

    def through_lens(self, image: np.ndarray) -> np.ndarray:
        """Applies the lens distortion to a rendered image (H, W, 3)."""
        assert self.camera.distortion is not None
        maps = _lens_maps(self.view.size, tuple(self.camera.K.ravel()), tuple(self.camera.distortion))
        return cv2.remap(image, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def camera_stand(seed: int, size: int, subject: int, camera: int) -> Stand:
    """Returns the camera set-up for a subject: the lens is the same for all, the stand varies a little."""
    azimuth, elevation, distance, tall = STANDS[camera]
    rng = numpy_rng(seed, "sample", RELEASE, "stand", subject, camera)
    turn, lift = rng.uniform(-6, 6), rng.uniform(-2, 2)
    view = fixed_view((size, size), azimuth + turn, elevation + lift, distance, tall)
    height = size + 2 if camera in (0, FRONTAL) or subject in TALL_SUBJECTS else size
    lens = Camera(view.K, view.R @ TO_RELEASE.T, view.t, np.array(LENSES[camera]), H36M_MODEL)
    return Stand(replace(view, height=height), lens)


@lru_cache(maxsize=32)
def _lens_maps(size: Size, K: tuple[float, ...], lens: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Maps each distorted pixel to its source pixel: inverts the distortion by fixed-point iteration."""
    matrix = np.reshape(K, (3, 3))
    focal, middle = np.diag(matrix)[:2], matrix[:2, 2]
    pixels = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).astype(np.float64)
    seen = (pixels - middle) / focal
    straight = seen.copy()
    for _ in range(20):
        straight += seen - distort_h36m(straight, np.array(lens))
    source = (straight * focal + middle).astype(np.float32)
    return source[..., 0], source[..., 1]


def _held(items: Sequence[Any]) -> list[Any]:
    return [item for item in items for _ in range(HOLD)]


def _joints(shot: Shot, studio: Studio) -> np.ndarray:
    """Returns the joints (32, 3) in the camera frame, metres."""
    (seen,) = shot.seen
    return studio.body(seen.person.identity.gender).keypoints(seen.vertices, seen.joints, H36M32)


def _mask_box(shot: Shot, size: Size) -> tuple[int, int, int, int]:
    """Returns the person's box with the release's margin, or an empty box if nothing is visible."""
    rows, columns = np.nonzero(shot.seen[0].mask)
    if len(rows) == 0:
        return 0, 0, 0, 0
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
    middle, half = (low + high) / 2, (high - low) / 2 * GENEROUS
    x0, y0 = (int(v) for v in np.clip(np.floor(middle - half), 0, size))
    x1, y1 = (int(v) for v in np.clip(np.ceil(middle + half), 0, size))
    return x0, y0, x1, y1


def _entry(fit: Fit) -> dict[str, list[float]]:
    """Returns NeuralAnnot's entry: SMPL in the release's world, metres."""
    root, transl = world_to_camera_smpl(fit.rotations[0], fit.transl, TO_RELEASE, np.zeros(3), fit.pelvis)
    vectors = Rotation.from_matrix(np.concatenate([root[None], fit.rotations[1:]])).as_rotvec()
    numbers = {"pose": vectors.ravel(), "shape": fit.betas, "trans": transl}
    return {name: rounded(value, 6).tolist() for name, value in numbers.items()}
