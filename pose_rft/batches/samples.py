"""A folder of shards as arrays: everything that training and evaluation need from its samples, except the pixels.

Reading a Record means opening a tar and parsing json and npz; training needs thousands of them a second. So the poses,
boxes and texts of a folder are read once and cached in scratch, keyed by the fingerprint of the shards; later runs
(another variant, RFT, evaluation) load two files.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pose_rft.batches.cached_folder import cached_folder
from pose_rft.body.frames import amass_to_camera, remove_heading, semantic_frame
from pose_rft.body.joints import LSP14, joint_set
from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.io import atomic
from pose_rft.progress import track
from pose_rft.record import Caption, Record, Turn
from pose_rft.shards.loader import ShardSet

FORM = 2  # version of the cached files; increment it when their content changes
READERS = 4
PELVIS = "pelvis"


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples of one folder of shards, in the order of its index.

    rotations: (N, 24, 3, 3) local rotations, root in the camera frame. Samples in the AMASS frame (PoseScript) have no
        camera: their heading is removed and the root rotated into the camera frame, so that the person faces a level
        camera (ChatPose's convention).
    labelled: (N, 24) bool, joints whose rotation the source labels; all False where there is no SMPL fit.
    betas: (N, 10). box: (N, 3) centre and side in px, of the whole image where the release gives no box.
    measured: (N, 14, 3) metres, the evaluation joints (`LSP14`) as measured by the data set, relative to its own
        pelvis, in the camera frame; NaN where it has no measurements (only a fit).
    has_image: (N,) bool. subjects, sequences: "" where the release names none. flags, captions, dialogue: per sample.
    shards: hold the pixels.
    """

    name: str
    shards: ShardSet
    keys: tuple[str, ...]
    rotations: Tensor
    labelled: Tensor
    betas: Tensor
    box: Tensor
    measured: Tensor
    has_image: Tensor
    subjects: tuple[str, ...]
    sequences: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...]
    captions: tuple[tuple[Caption, ...], ...]
    dialogue: tuple[tuple[Turn, ...], ...]

    def __len__(self) -> int:
        return len(self.keys)

    def headingless_rotations(self) -> Tensor:
        """(N, 24, 3, 3): every pose without its heading, facing the camera, as for poses that have no camera."""
        rotations = semantic_frame(self.rotations, "camera")
        return torch.cat((amass_to_camera(rotations[:, :1]), rotations[:, 1:]), dim=1)


def load_samples(name: str, shards: ShardSet, cache: Path) -> Samples:
    """Loads the samples of `shards`, from `cache` if they were read before.

    Args:
        name: of this set in error messages and examples, e.g. `coco/train`.
        cache: folder for all sets; each has its own subfolder.
    Raises:
        PoseRftError: a shard is damaged.
    """

    def make(folder: Path) -> None:
        _write(folder, track(_records(shards), f"reading {name}", len(shards), "samples"), len(shards))

    folder = cached_folder(cache / f"{shards.fingerprint[:24]}-{FORM}", make)
    arrays = {key: torch.from_numpy(value) for key, value in np.load(folder / "arrays.npz", allow_pickle=False).items()}
    texts = json.loads((folder / "texts.json").read_text())
    return Samples(
        name=name,
        shards=shards,
        **arrays,
        keys=tuple(texts["keys"]),
        subjects=tuple(texts["subjects"]),
        sequences=tuple(texts["sequences"]),
        flags=tuple(tuple(row) for row in texts["flags"]),
        captions=tuple(tuple(Caption(*caption) for caption in row) for row in texts["captions"]),
        dialogue=tuple(tuple(Turn(*turn) for turn in row) for row in texts["dialogue"]),
    )


def _records(shards: ShardSet) -> Iterator[Record]:
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(shards.record, range(len(shards)))


def _write(folder: Path, records: Iterator[Record], n: int) -> None:
    pose, labelled = np.zeros((n, 24, 3), np.float32), np.zeros((n, 24), bool)
    betas, box = np.zeros((n, 10), np.float32), np.zeros((n, 3), np.float32)
    measured = np.full((n, len(LSP14), 3), np.nan, np.float32)
    has_image, amass = np.zeros(n, bool), np.zeros(n, bool)
    names = ("keys", "subjects", "sequences", "flags", "captions", "dialogue")
    texts: dict[str, list[object]] = {name: [] for name in names}
    for i, record in enumerate(records):
        if record.smpl is not None:
            pose[i, 0], pose[i, 1:] = record.smpl.global_orient, record.smpl.body_pose
            labelled[i], betas[i] = record.smpl.valid, record.smpl.betas
            amass[i] = record.smpl.frame == "amass"
        if record.image is not None:
            has_image[i] = True
            box[i] = record_box(record)
        if (joints := measured_joints(record)) is not None:
            measured[i] = joints
        texts["keys"].append(record.key)
        texts["subjects"].append(record.subject or "")
        texts["sequences"].append(record.sequence or "")
        texts["flags"].append(record.flags)
        texts["captions"].append([(caption.text, caption.kind) for caption in record.captions])
        texts["dialogue"].append([(turn.speaker, turn.text) for turn in record.dialogue])
    rotations = axis_angle_to_matrix(torch.from_numpy(pose))
    root = rotations[:, 0]
    rotations[:, 0] = torch.where(torch.from_numpy(amass)[:, None, None], amass_to_camera(remove_heading(root)), root)
    arrays = {"rotations": rotations.numpy(), "labelled": labelled, "betas": betas, "box": box}
    arrays |= {"measured": measured, "has_image": has_image}
    np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
    (folder / "texts.json").write_text(atomic.canonical_json(texts))


def measured_joints(record: Record) -> np.ndarray | None:
    """The 14 evaluation joints of a record as measured by its data set, relative to its own pelvis: (14, 3) metres.

    None without 3D joints, or if one of these or the pelvis is unlabelled or not in the joint set (SMPL has no top of
    the head).
    """
    if record.joints3d is None:
        return None
    names = joint_set(record.joints3d.joint_set)
    if not all(joint in names for joint in (PELVIS, *LSP14.joints)):
        return None
    points = record.joints3d.points[names.indices([PELVIS, *LSP14.joints])]
    return points[1:, :3] - points[:1, :3] if (points[:, 3] > 0).all() else None


def record_box(record: Record) -> tuple[float, float, float]:
    """Centre and side in px of the square to crop: the person's box, or the whole image."""
    if record.box is not None:
        return (*record.box.center, record.box.side)
    if record.image is None:
        raise ValueError(f"{record.key} has no image")
    return record.image.width / 2, record.image.height / 2, float(max(record.image.width, record.image.height))


def mean_pose(sets: Sequence[Samples]) -> Tensor:
    """The mean rotation of every joint over all labelled samples: (24, 3, 3), root in the camera frame.

    Projects the arithmetic mean of the matrices onto the nearest rotation (the minimiser of the mean squared chordal
    distance); identity for joints that no sample labels.
    """
    total, count = torch.zeros(24, 3, 3, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)
    for samples in sets:
        weight = samples.labelled.double()
        total += (samples.rotations.double() * weight[..., None, None]).sum(0)
        count += weight.sum(0)
    mean = torch.where((count > 0)[:, None, None], total, torch.eye(3, dtype=torch.float64))
    u, _, vh = torch.linalg.svd(mean)
    proper = torch.ones(24, 3, dtype=torch.float64)
    proper[:, 2] = torch.det(u @ vh)
    return ((u * proper[:, None]) @ vh).float()
