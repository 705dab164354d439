"""A miniature PoseScript (v2 names) with the AMASS files that contain its poses.

`posescript/posescript_release/*.json` and `amass/SUBSET/SUBJECT/SEQUENCE_poses.npz` (SMPL+H: 156 numbers per frame,
z up, any heading, several frame rates, with a `shape.npz` beside them). Poses refer to AMASS by file and frame, some
with an older subset name than the folder's, as in the real release. Automatic captions come from the project's
posecodes, human ones from `human_captions`. Source: naver/posescript README and src/text2pose/config.py; AMASS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import remove_heading
from pose_rft.captions.describe import describe_poses
from pose_rft.io.atomic import canonical_json, write_bytes, write_text
from pose_rft.render.steps import rounded
from pose_rft.sample.human_captions import human_captions
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.people import Studio
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.stored import npz
from pose_rft.seeds import numpy_rng

RELEASE = "posescript"
AMASS = "amass"
SPLITS = ("train", "val", "test")
POSES_PER_FILE = 10
FILES_PER_TASK = 20
STRIDE = 3  # frames from one described pose to the next; the frames between interpolate
# (subset name in PoseScript, folder name, native frame rate)
SUBSETS = (
    ("CMU", "CMU", 120.0),
    ("BioMotionLab_NTroje", "BMLrub", 60.0),
    ("KIT", "KIT", 100.0),
    ("MPI_Limits", "PosePrior", 120.0),
    ("Eyes_Japan_Dataset", "Eyes_Japan_Dataset", 60.0),
    ("ACCAD", "ACCAD", 120.0),
    ("DFaust", "DFaust_67", 60.0),
    ("SFU", "SFU", 250.0),
)
ACTIONS = ("walking", "stretching", "dancing", "range_of_motion")
TO_AMASS = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # from the sample's y up to AMASS's z up: Rx(+90°)
# Pose ids are scattered over the real release's 100,000.
ID_STEP, ID_COUNT = 37_199, 100_000


@dataclass(frozen=True)
class Described:
    """A pose with its id, split, AMASS file (under PoseScript's name), frame and captions."""

    number: int
    split: str
    place: str
    frame: int
    automatic: tuple[str, ...]
    human: str | None


def tasks(params: SampleParams, seed: int) -> list[Task]:
    files = -(-_total(params) // POSES_PER_FILE)
    chunks = [tuple(range(i, min(i + FILES_PER_TASK, files))) for i in range(0, files, FILES_PER_TASK)]
    # A described pose costs about a quarter of a rendered image.
    return [Task(RELEASE, i, chunk, len(chunk) * POSES_PER_FILE // 4) for i, chunk in enumerate(chunks)]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> list[Described]:
    return [pose for file in task.payload for pose in _file(file, params, seed, studio, root / AMASS)]


def finish(params: SampleParams, seed: int, results: Sequence[list[Described]], root: Path) -> None:
    poses = [pose for result in results for pose in result]
    release = root / RELEASE / "posescript_release"
    count = len(poses)
    human = {str(pose.number): pose.human for pose in poses if pose.human is not None}
    # Values are lists in one release and strings in another; both occur here.
    listed = {key: text if int(key) % 4 == 0 else [text] for key, text in human.items()}
    files = {
        f"posescript_human_{len(human)}": listed,
        f"posescript_auto_{count}": {str(pose.number): list(pose.automatic) for pose in poses},
        f"ids_2_dataset_sequence_and_frame_index_{count}": {
            str(pose.number): ["AMASS", pose.place, pose.frame] for pose in poses
        },
    } | {f"{split}_ids_{count}": sorted(pose.number for pose in poses if pose.split == split) for split in SPLITS}
    for name, content in files.items():
        write_text(release / f"{name}.json", canonical_json(content))


def pose_id(index: int) -> int:
    """Returns the id of a pose."""
    return (index * ID_STEP + 11) % ID_COUNT


def split_of(index: int, params: SampleParams) -> str:
    """Returns a pose's split: test comes first, then val, then train, so more training poses change no test pose."""
    if index < params.posescript.test:
        return "test"
    return "val" if index < params.posescript.test + params.posescript.val else "train"


def _has_human(index: int, params: SampleParams) -> bool:
    """Whether a pose has a human caption: all of val and test, the first ones of train."""
    return index < params.posescript.test + params.posescript.val + params.posescript.train_human


def _total(params: SampleParams) -> int:
    return params.posescript.train + params.posescript.val + params.posescript.test


def _file(file: int, params: SampleParams, seed: int, studio: Studio, amass: Path) -> list[Described]:
    """Writes one AMASS file; returns its poses that PoseScript describes."""
    rng = numpy_rng(seed, "sample", RELEASE, "file", file)
    stored, folder, rate = SUBSETS[file % len(SUBSETS)]
    subject = f"{folder[:3].lower()}{file // len(SUBSETS) % 5:03d}"
    sequence = f"{file:04d}_{ACTIONS[file % len(ACTIONS)]}_poses.npz"
    numbers = range(file * POSES_PER_FILE, min((file + 1) * POSES_PER_FILE, _total(params)))
    rngs = [numpy_rng(seed, "sample", RELEASE, "pose", index) for index in numbers]
    poses = np.stack([sample_pose(own) for own in rngs])
    raw = TO_AMASS @ poses[:, 0]
    poses[:, 0] = remove_heading(torch.from_numpy(raw)).numpy()
    rest = studio.body().rest_joints()
    automatic = describe_poses(poses, rest, rngs, params.posescript.automatic_captions)
    described = [
        Described(
            number=pose_id(index),
            split=split_of(index, params),
            place=f"{stored}/{subject}/{sequence}",
            frame=STRIDE * i,
            automatic=tuple(automatic[i]),
            human=human_captions(poses[i], rest, rngs[i])[0] if _has_human(index, params) else None,
        )
        for i, index in enumerate(numbers)
    ]
    poses[:, 0] = [_turned(root, own) for root, own in zip(raw, rngs, strict=True)]
    path = amass / folder / subject / sequence
    betas = np.zeros(16)
    betas[:10] = rounded(numpy_rng(seed, "sample", RELEASE, "subject", subject).normal(0, 0.5, 10), 8)
    motion = _motion(poses, rng)
    content = {
        "poses": rounded(motion, 8),
        "trans": rounded(np.array([0, 0, 0.95]) + np.cumsum(rng.normal(0, 0.01, (len(motion), 3)), 0), 8),
        "betas": betas,
        "gender": np.array(("male", "female")[file % 2]),
        "mocap_framerate": np.array(rate),
        "dmpls": rounded(rng.normal(0, 0.1, (len(motion), 8)), 8),
    }
    write_bytes(path, npz(content))
    write_bytes(path.parent / "shape.npz", npz({"betas": betas}))
    return described


def _turned(root: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the root rotation (3, 3) with a random heading."""
    turn = Rotation.from_euler("z", rng.uniform(-180, 180), degrees=True).as_matrix()
    return turn @ root


def _motion(key_frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Interpolates keyframes (N, 24, 3, 3), one every STRIDE frames, to SMPL+H poses (T, 156) with relaxed fingers."""
    vectors = Rotation.from_matrix(key_frames.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 24, 3)[:, :22]
    following = np.concatenate([vectors[1:], vectors[-1:]])
    steps = np.arange(STRIDE)[None, :, None, None] / STRIDE
    body = vectors[:, None] * (1 - steps) + following[:, None] * steps
    frames = body.reshape(-1, 66)
    fingers = rng.normal(0, 0.1, 90) + rng.normal(0, 0.01, (len(frames), 90))
    return np.concatenate([frames, fingers], axis=1)
