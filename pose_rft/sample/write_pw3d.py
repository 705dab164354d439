"""A miniature 3DPW in the real file formats: images and Python 2 pickles with gendered SMPL in the world frame.

`imageFiles/SEQ/image_%05d.jpg`, `sequenceFiles/{train,validation,test}/SEQ.pkl`. The camera moves; the people of a
sequence keep their clothes. Each sequence ends with a frame whose camera pose is invalid and one without 2D joints.
Test and training sequences are alike. The validation sequences are the sample's test set `hard`: each shows one kind of
difficulty, with people, poses and cameras that occur in no training image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import OPENPOSE18
from pose_rft.render.steps import rounded
from pose_rft.sample import python2_pickle
from pose_rft.sample.clothes import dressed
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.people import Gender, Person, Seen, Shot, Size, Studio, View, encode, exact_view, framed_view
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.scene import background
from pose_rft.sample.varied import Difficulty, is_labelled, varied_shot
from pose_rft.seeds import numpy_rng

RELEASE = "3dpw"
TWO_PEOPLE_EVERY = 3  # one sequence in three has two people
PLACES = (
    *("downtown_walking", "outdoors_fencing", "office_phoneCall", "flat_guitar", "downtown_sitOnStairs"),
    *("outdoors_climbing", "courtyard_dancing", "downtown_cafe", "outdoors_freestyle", "courtyard_box"),
)
UNUSABLE = 2  # frames at the end: invalid camera, no 2D joints
FEWEST_JOINTS = 6  # if fewer are detected, the release sets poses2d to zero
FOCAL = 1.8  # relative to the image's shorter side, as in the release (1961 px for 1080 px)
# The test set `hard`: the sequences take these kinds of difficulty in turn.
HARD_SPLIT = "validation"
UPRIGHT, WHOLE = {"everyday": 0.5, "in motion": 0.5}, {"whole": 1.0}
HARD: Mapping[str, Difficulty] = {
    "lying": Difficulty({"on the ground": 1.0}, WHOLE, steep=0.5),
    "head down": Difficulty({"upside down": 0.85, "tumbled": 0.15}, WHOLE),
    "in motion": Difficulty({"in motion": 1.0}, WHOLE, others=(0.6, 0.4)),
    "cut": Difficulty(UPRIGHT, {"to the knees": 0.4, "to the waist": 0.3, "legs": 0.15, "left": 0.15}),
    "hidden": Difficulty(UPRIGHT, WHOLE, props=1.0, others=(0.0, 0.4, 0.4, 0.2)),
    "steep": Difficulty(UPRIGHT, WHOLE, steep=1.0, askew=0.5),
}
NOISE = 0.006  # error of a 2D detector, relative to the image height


def tasks(params: SampleParams, seed: int) -> list[Task]:
    names = [(split, index) for split, count in _counts(params).items() for index in range(count)]
    lengths = {"train": params.pw3d.frames, HARD_SPLIT: params.pw3d.hard_frames, "test": params.pw3d.frames}
    return [Task(RELEASE, i, (*name, lengths[name[0]]), lengths[name[0]]) for i, name in enumerate(names)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> None:
    """Writes the images and the pickle of one sequence."""
    split, index, frames = task.payload
    name = sequence_name(split, index)
    rng = numpy_rng(seed, "sample", RELEASE, name)
    genders: tuple[Gender, ...] = ("female", "male") if index % 2 else ("male", "female")
    cast = [studio.identity(rng, gender) for gender in genders[: 2 if index % TWO_PEOPLE_EVERY == 2 else 1]]
    size = picture_size(params.pw3d.size, landscape=len(cast) == 2)
    if split == HARD_SPLIT:
        shots = _hard_shots(rng, index, genders[0], params.pw3d.size, frames, studio)
    else:
        place = background(rng, (size[1], size[0]))
        shots = []
        for _ in range(frames):
            at = [(0.0, 0.0)] if len(cast) == 1 else [(-0.65, 0.0), (0.65, rng.uniform(-0.3, 0.3))]
            people = [studio.place(who, sample_pose(rng), spot) for who, spot in zip(cast, at, strict=True)]
            shots.append(studio.shoot(rng, people, handheld_view(rng, people, size), place, occluder=0.2))
    shots += shots[-1:] * UNUSABLE
    folder = root / RELEASE / "imageFiles" / name
    folder.mkdir(parents=True, exist_ok=True)
    for frame, shot in enumerate(shots):
        (folder / f"image_{frame:05d}.jpg").write_bytes(encode(shot.image))
    path = root / RELEASE / "sequenceFiles" / split / f"{name}.pkl"
    python2_pickle.dump(sequence_content(name, shots, rng, studio), path)


def finish(params: SampleParams, seed: int, results: Sequence[None], root: Path) -> None:
    """Every sequence has its own file; there is nothing to gather."""


def sequence_name(split: str, index: int) -> str:
    """Returns the name of a sequence."""
    start = {"test": 0, "train": 3, "validation": 6}[split]
    return f"{PLACES[(start + index) % len(PLACES)]}_{index:02d}"


def picture_size(short: int, landscape: bool) -> Size:
    """Returns (width, height) px with aspect ratio 16:9, or 9:16 unless `landscape`."""
    long = round(short * 16 / 9 / 2) * 2
    return (long, short) if landscape else (short, long)


def _hard_shots(
    rng: np.random.Generator, index: int, gender: Gender, short: int, frames: int, studio: Studio
) -> list[Shot]:
    """Renders one person in frames of one kind of difficulty; other people in the image are not tracked."""
    difficulty = list(HARD.values())[index % len(HARD)]
    size = picture_size(short, landscape=index // len(HARD) % 2 == 1)
    who = studio.identity(rng, gender, dressed)
    shots: list[Shot] = []
    while len(shots) < frames:
        shot = varied_shot(rng, studio, size, difficulty, who, focal=FOCAL * short)
        if is_labelled(shot.seen[0]):
            shots.append(replace(shot, seen=shot.seen[:1]))
    return shots


def handheld_view(rng: np.random.Generator, people: Sequence[Person], size: Size) -> View:
    """A handheld camera with a fixed lens: instead of zooming, it moves closer or back until the people fit."""
    zoomed = framed_view(rng, people, size)
    depth = float(np.mean([zoomed.to_camera(person.joints)[:, 2].mean() for person in people]))
    focal = FOCAL * min(size)
    step = depth * (focal / zoomed.K[0, 0] - 1)
    K = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])
    return exact_view(K, zoomed.R, zoomed.t + np.array([0, 0, step]), size)


def sequence_content(name: str, shots: Sequence[Shot], rng: np.random.Generator, studio: Studio) -> dict[str, Any]:
    """Returns all fields of a sequence's pickle; the last two frames are made unusable."""
    tracks = [_track(person, shots, rng, studio) for person in range(len(shots[0].seen))]
    cameras = np.tile(np.eye(4), (len(shots), 1, 1))
    for frame, shot in enumerate(shots):
        cameras[frame, :3, :3], cameras[frame, :3, 3] = shot.view.R, shot.view.t
    return {
        "sequence": name,
        **{field: [track[field] for track in tracks] for field in tracks[0]},
        "texture_maps": [],
        "img_frame_ids": np.arange(0, 2 * len(shots), 2),  # frames of the 60 Hz recording, not image numbers
        "cam_poses": cameras,
        "cam_intrinsics": shots[0].view.K,
    }


def _track(person: int, shots: Sequence[Shot], rng: np.random.Generator, studio: Studio) -> dict[str, Any]:
    """Returns the per-person fields of the pickle."""
    people = [shot.seen[person].person for shot in shots]
    who = people[0].identity
    poses = rounded([Rotation.from_matrix(p.rotations).as_rotvec().ravel() for p in people], 8)
    trans = np.stack([p.transl for p in people])
    poses2d = np.stack([_detections(shot, shot.seen[person], rng, studio).T for shot in shots])
    poses2d = rounded(poses2d, 4)
    poses2d[-1] = 0
    campose_valid = np.ones(len(shots), np.int64)
    campose_valid[-2] = 0
    at_rest, _ = studio.body(who.gender).vertices(np.tile(np.eye(3), (24, 1, 1)), who.betas)
    return {
        "betas": who.betas,
        "poses": poses,
        "trans": trans,
        "poses_60Hz": np.repeat(poses, 2, axis=0),
        "trans_60Hz": np.repeat(trans, 2, axis=0),
        "betas_clothed": who.betas,
        "v_template_clothed": at_rest.astype(np.float64),
        "genders": who.gender[0],
        "poses2d": poses2d,
        "jointPositions": rounded([p.joints.ravel() for p in people], 8),
        "campose_valid": campose_valid,
    }


def _detections(shot: Shot, seen: Seen, rng: np.random.Generator, studio: Studio) -> np.ndarray:
    """Simulates a 2D detector: (18, 3), px and confidence; all zeros if it finds fewer than six joints."""
    joints = studio.body(seen.person.identity.gender).keypoints(seen.vertices, seen.joints, OPENPOSE18)
    points = shot.view.project(joints)
    height, width = seen.mask.shape
    found = np.zeros((len(OPENPOSE18), 3))
    for i, (x, y) in enumerate(points + rng.normal(0, NOISE * height, points.shape)):
        if 0 <= x < width and 0 <= y < height:
            visible = seen.mask[int(y), int(x)]
            found[i] = x, y, rng.uniform(0.6, 0.95) if visible else rng.uniform(0.15, 0.5)
    return found if (found[:, 2] > 0).sum() >= FEWEST_JOINTS else np.zeros_like(found)


def _counts(params: SampleParams) -> dict[str, int]:
    sizes = params.pw3d
    return {"train": sizes.train_sequences, HARD_SPLIT: sizes.hard_sequences, "test": sizes.sequences}
