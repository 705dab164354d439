"""MPII's labels: the release's own MAT file, and h5 and JSON files derived from it.

- `mpii_human_pose_v1_u12_1.mat` (v5): nested structs in which any field may be missing or empty.
- h5 of pose-hg-train (`train.h5`, `valid.h5`): coordinates truncated to whole pixels, 0 or negative if unlabelled;
  `center` and `scale` describe the crop: 15 px per scale below the release's centre, 1.25 times the height.
- JSON of HRNet and MMPose (`train.json`, `valid.json`, `trainval.json`): the numbers of the MAT file.
- JSON of pytorch-pose (`mpii_annotations.json`), originally from convolutional pose machines: the same numbers, with
  training and validation in one file, distinguished by `isValidation`; each row describes one person in `joint_self`,
  other people of the image have their own rows.

Like MATLAB, all four count pixels from 1, so 1 is subtracted. Source: docs/formats.md, MPII;
princeton-vl/pose-hg-train src/misc/mpii.py, open-mmlab/mmpose tests/data/mpii, bearpaw/pytorch-pose.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.joints import MPII16
from pose_rft.datasets.common.base import box_around
from pose_rft.errors import PoseRftError
from pose_rft.io import door
from pose_rft.io.hdf5 import read_datasets
from pose_rft.io.json_files import read_json
from pose_rft.io.matlab import number, read_mat, structs, text
from pose_rft.record import Box

PX_PER_SCALE = 200.0  # `scale` is the person's height over 200
# pose-hg-train's crop: 15 px per scale below `objpos`, side 1.25 times the height (measured on its valid.h5).
BELOW, MARGIN = 15.0, 1.25
JOINTS_SCALE = 1.2
# Field names.
HRNET = {"image": "image", "center": "center", "scale": "scale", "joints": "joints"}
PYTORCH_POSE = {"image": "img_paths", "center": "objpos", "scale": "scale_provided", "joints": "joint_self"}
H5_COLUMNS = ("imgname", "center", "scale", "part")


@dataclass(frozen=True, eq=False)
class Person:
    """index: position among the people of the image; joints (16, 3): px counted from 0, and 1 = labelled."""

    index: int
    joints: np.ndarray
    box: Box


Pictures = dict[str, list[Person]]
"""The people with joints of each image, by file name, in file order."""


def read_mat_labels(path: Path) -> Pictures:
    """Reads the people of the release's training images (the release withholds test joints).

    Raises:
        PoseRftError: not a readable MATLAB file, or it lacks MPII's `RELEASE` struct.
    """
    release = structs(read_mat(path).get("RELEASE"))
    if not release or "annolist" not in release[0] or "img_train" not in release[0]:
        raise PoseRftError(f"{path} has no RELEASE with annolist and img_train; get {path.name} again.")
    pictures = structs(release[0]["annolist"])
    is_train = np.asarray(release[0]["img_train"]).ravel()
    if len(is_train) != len(pictures):
        raise PoseRftError(f"{path}: {len(pictures)} pictures but {len(is_train)} entries of img_train; get it again.")

    def people() -> Iterator[tuple[str, np.ndarray, Box | None]]:
        for picture, train in zip(pictures, is_train, strict=True):
            names = structs(picture.get("image"))
            name = text(names[0].get("name")) if names else ""
            for rect in structs(picture.get("annorect")):
                joints = _joints_of(rect)
                if train == 1 and joints[:, 2].any() and not name:
                    raise PoseRftError(f"{path}: a training picture with joints has no name; get it again.")
                if train == 1:
                    yield name, joints, _box_of(rect)

    return _by_picture(people())


def read_h5_labels(path: Path) -> Pictures:
    """Reads the people of an .h5 file of pose-hg-train.

    Raises:
        PoseRftError: the file does not exist, is not HDF5, or lacks the columns of pose-hg-train.
    """
    try:
        names, centers, scales, parts = map(np.asarray, read_datasets(path, H5_COLUMNS))
    except door.Missing:
        raise
    except PoseRftError as error:
        raise PoseRftError(f"{path} is no h5 file of pose-hg-train ({error})") from None
    count, joints = (len(names) if names.ndim else 0), len(MPII16)
    numbers = all(column.dtype.kind in "fiu" for column in (centers, scales, parts))
    if not numbers or parts.shape != (count, joints, 2) or centers.shape != (count, 2) or scales.shape != (count,):
        raise PoseRftError(
            f"{path}: part, center and scale have shapes {parts.shape}, {centers.shape}, {scales.shape}, expected "
            f"numbers of ({count}, 16, 2), ({count}, 2), ({count},); get it again."
        )

    def people() -> Iterator[tuple[str, np.ndarray, Box | None]]:
        for name, center, scale, part in zip(names, centers, scales, parts.astype(float), strict=True):
            told = scale > 0 and np.isfinite((*center, scale)).all()
            box = _square(center[0] - 1, center[1] - 1, scale * PX_PER_SCALE) if told else None
            yield _h5_text(name), _with_labels(part), box

    return _by_picture(people())


def read_json_labels(path: Path, split: str = "train") -> Pictures:
    """Reads the people of an HRNet file (one split per file), or of `split` (train or val) in a pytorch-pose file.

    Raises:
        PoseRftError: the file does not exist, is not JSON, or a row is in neither format.
    """

    def people() -> Iterator[tuple[str, np.ndarray, Box | None]]:
        for row, label in enumerate(read_json(path, list)):
            try:
                of_pytorch_pose = "joint_self" in label
                names = PYTORCH_POSE if of_pytorch_pose else HRNET
                name, scale = str(label[names["image"]]), float(label[names["scale"]])
                x, y = (float(value) for value in label[names["center"]])
                points = np.asarray(label[names["joints"]], float).reshape(len(MPII16), 3 if of_pytorch_pose else 2)
                if of_pytorch_pose and (float(label["isValidation"]) > 0) != (split == "val"):
                    continue
            except (KeyError, TypeError, ValueError) as error:
                raise PoseRftError(
                    f"{path}, row {row}: expected image, center, scale and 16 joints as HRNet's MPII files have, or "
                    f"img_paths, objpos, scale_provided, joint_self and isValidation as pytorch-pose's "
                    f"({type(error).__name__}: {error}); `labels` of MPII takes those."
                ) from None
            told = scale > 0 and x > 0 and np.isfinite((x, y, scale)).all()
            yield name, _with_labels(points[:, :2]), _box(x, y, scale) if told else None

    return _by_picture(people())


def _by_picture(people: Iterable[tuple[str, np.ndarray, Box | None]]) -> Pictures:
    """Groups people with joints by image; a missing box is replaced by one around the joints."""
    pictures: Pictures = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for name, joints, box in people:
        index = seen[name]
        seen[name] += 1
        labelled = joints[joints[:, 2] > 0, :2]
        if len(labelled):
            box = box or box_around(labelled, JOINTS_SCALE, f"joints2d x{JOINTS_SCALE}")
            pictures[name].append(Person(index, joints, box))
    return dict(pictures)


def _box(x: float, y: float, scale: float) -> Box:
    """Returns the box for the release's `objpos` (px from 1) and `scale`."""
    height = scale * PX_PER_SCALE
    return _square(x - 1, y - 1 + BELOW * height / PX_PER_SCALE, MARGIN * height)


def _square(x: float, y: float, side: float) -> Box:
    return Box((round(float(x), 3), round(float(y), 3)), round(float(side), 3), f"MPII scale x{MARGIN}")


def _with_labels(points: np.ndarray) -> np.ndarray:
    """(16, 2) px from 1, unlabelled if not positive or not finite → (16, 3): px from 0, and 1 = labelled."""
    labelled = (np.isfinite(points) & (points > 0)).all(axis=1)
    return np.where(labelled[:, None], np.concatenate([points - 1, np.ones((len(points), 1))], axis=1), 0.0)


def _h5_text(value: Any) -> str:
    """Decodes a name stored as bytes, text, or a row of character codes (older files)."""
    if isinstance(value, np.ndarray):
        value = bytes(value.astype(np.uint8))
    return value.decode(errors="replace").rstrip("\0 ") if isinstance(value, bytes) else str(value)


def _joints_of(rect: Mapping[str, Any]) -> np.ndarray:
    """Returns joints (16, 3) of one `annorect` of the MAT file; any field may be missing or empty."""
    annopoints = structs(rect.get("annopoints"))
    joints = np.zeros((len(MPII16), 3))
    for point in structs(annopoints[0].get("point")) if annopoints else []:
        joint, x, y = (number(point.get(name)) for name in ("id", "x", "y"))
        if joint is None or x is None or y is None or not np.isfinite((x, y)).all():
            continue
        if 0 <= joint < len(MPII16):
            joints[int(joint)] = x - 1, y - 1, 1
    return joints


def _box_of(rect: Mapping[str, Any]) -> Box | None:
    position = structs(rect.get("objpos"))
    x, y = (number(position[0].get(name)) if position else None for name in ("x", "y"))
    scale = number(rect.get("scale"))
    if x is None or y is None or scale is None or not np.isfinite((x, y, scale)).all() or scale <= 0:
        return None
    return _box(x, y, scale)
