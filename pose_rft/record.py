"""One sample as a frozen, validated object, and its serialisation as WebDataset members.

A `Record` is one person in one image, one text-pose pair, or one VQA dialogue. Dataset readers create Records, the
shard writer stores them, and the loader restores them: `Record.from_members(record.to_members()) == record`. Two
records are equal if they serialise to the same bytes.

Units and frames: metres, radians, pixels; camera frame x right, y down, z forward. Text-pose samples (PoseScript) are
in the AMASS frame (z up); `Smpl.frame` says which. Unknown values are None, never zero-filled arrays.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic_core import from_json

from pose_rft.errors import PoseRftError, visible
from pose_rft.io.atomic import canonical_json
from pose_rft.io.packed_arrays import pack, unpack
from pose_rft.io.parsing import DAMAGE
from pose_rft.io.text import InvalidText

KEY = re.compile(r"[A-Za-z0-9_-]+")
SCHEMA_VERSION = 1
SMALLEST_BOX, LARGEST_BOX = 1.0, 1e5  # px: less than a pixel shows nobody, and OpenCV's warps end before more
DECIMALS = 9
"""Of stored metres, radians and pixels: machines differ in the last digits of a product, far below such a step."""
FLOAT, DOUBLE, TRUTH = (np.dtype(kind) for kind in (np.float32, np.float64, bool))
SMPL_FORM: Mapping[str, tuple[tuple[int, ...], np.dtype]] = {
    "global_orient": ((3,), FLOAT),
    "body_pose": ((23, 3), FLOAT),
    "betas": ((10,), FLOAT),
    "transl": ((3,), FLOAT),
    "valid": ((24,), TRUTH),
}
CaptionKind = Literal["human", "automatic"]


def _is_finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite."""
    flat = values.reshape(-1).astype(DOUBLE, copy=False)  # whose squares of single numbers do not overflow
    # A finite sum of squares is proof, in a fraction of the time; if large values overflow it, check each value.
    return math.isfinite(np.dot(flat, flat)) or bool(np.isfinite(flat).all())


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_type(holder: object, name: str, kind: np.dtype) -> np.ndarray:
    """Converts the array attribute `name` of a frozen object to this dtype in place, and returns it."""
    value = getattr(holder, name)
    if type(value) is not np.ndarray or value.dtype != kind:
        value = np.asarray(value, dtype=kind)
        object.__setattr__(holder, name, value)
    return value


def _in_steps(array: np.ndarray) -> np.ndarray:
    """Returns an array as it is stored: floats rounded to 1e-9, no negative zeros, the same on every machine."""
    if array.dtype.kind != "f":
        return array
    return (np.round(array.astype(DOUBLE), DECIMALS) + 0.0).astype(array.dtype)


@dataclass(frozen=True)
class Image:
    """Encoded bytes as released (video frames: encoded once); width and height of the decoded image, px."""

    data: bytes = field(repr=False)
    extension: Literal["jpg", "png"]
    width: int
    height: int

    @cached_property
    def digest(self) -> str:
        """First 128 bits of the sha256 of the bytes; the same for all people in a picture."""
        return hashlib.sha256(self.data).hexdigest()[:32]


@dataclass(frozen=True)
class Box:
    """A square around the person: centre and side in px; `convention` says how it was made, e.g. `joints2d x1.2`."""

    center: tuple[float, float]
    side: float
    convention: str


@dataclass(frozen=True, eq=False)
class Smpl:
    """SMPL parameters: axis-angle radians, metres.

    global_orient (3), body_pose (23, 3), betas (10,), transl (3); valid (24,) bool: joints that the source labels
    (not the hands of SMPL-H/SMPL-X sources). `frame` is `camera` or `amass`; `source` e.g. `neuralannot`, `eft`.
    """

    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    valid: np.ndarray
    gender: Literal["neutral", "male", "female"]
    body_model: str
    frame: Literal["camera", "amass"]
    source: str

    def __post_init__(self) -> None:
        for name, (shape, kind) in SMPL_FORM.items():
            value = _of_type(self, name, kind)
            if value.shape != shape:
                raise PoseRftError(f"SMPL {name} has shape {value.shape}, expected {shape}.")
            if kind is FLOAT and not _is_finite(value):
                raise PoseRftError(f"SMPL {name} from {self.source} holds a number that is not finite.")


@dataclass(frozen=True, eq=False)
class Keypoints:
    """points: (J, 3) px + confidence in 2D, (J, 4) metres in the camera frame (absolute) + confidence in 3D.

    `joint_set` names the release's own order, see `pose_rft.body.joints`; mapping happens at load time.
    """

    points: np.ndarray
    joint_set: str

    def __post_init__(self) -> None:
        points = _of_type(self, "points", FLOAT)
        if points.ndim != 2 or points.shape[1] not in (3, 4):
            raise PoseRftError(f"{self.joint_set} keypoints have shape {points.shape}, expected (J, 3) or (J, 4).")
        if not _is_finite(points):
            raise PoseRftError(f"{self.joint_set} keypoints hold a number that is not finite.")


@dataclass(frozen=True, eq=False)
class Camera:
    """K (3, 3) px; world to camera `X_cam = R X_world + t`, t (3) metres; distortion coefficients of a named model."""

    K: np.ndarray
    R: np.ndarray | None = None
    t: np.ndarray | None = None
    distortion: np.ndarray | None = None
    distortion_model: str | None = None

    def __post_init__(self) -> None:
        for name, shape in (("K", (3, 3)), ("R", (3, 3)), ("t", (3,)), ("distortion", None)):
            if getattr(self, name) is not None and _of_type(self, name, DOUBLE).shape != shape and shape is not None:
                raise PoseRftError(f"A camera's {name} has shape {getattr(self, name).shape}, expected {shape}.")

    @property
    def problem(self) -> str | None:
        """Why this camera is invalid; None for a valid one."""
        numbers = (self.K, self.R, self.t, self.distortion)
        if not all(values is None or _is_finite(values) for values in numbers):
            return "a number that is not finite"
        return None if self.K[0, 0] > 0 and self.K[1, 1] > 0 else "a focal length that is not positive"


@dataclass(frozen=True)
class Caption:
    """A sentence about a pose, and who wrote it."""

    text: str
    kind: CaptionKind


@dataclass(frozen=True)
class Turn:
    """One turn of a VQA dialogue; the literal `<image>` marker of the release is removed from `text`."""

    speaker: Literal["human", "assistant"]
    text: str


ARRAYS = {
    "smpl": ("global_orient", "body_pose", "betas", "transl", "valid"),
    "joints3d": ("points",),
    "joints2d": ("points",),
    "camera": ("K", "R", "t", "distortion"),
}
PLAIN = ("key", "dataset", "split", "subject", "sequence", "camera_id", "frame")
GROUPS = {"smpl": Smpl, "joints3d": Keypoints, "joints2d": Keypoints, "camera": Camera}


@dataclass(frozen=True, eq=False)
class Record:
    """One sample. `key` is unique inside its data set and matches `[A-Za-z0-9_-]+`."""

    key: str
    dataset: str
    split: str
    image: Image | None = None
    subject: str | None = None
    sequence: str | None = None
    camera_id: str | None = None
    frame: int | None = None
    box: Box | None = None
    smpl: Smpl | None = None
    joints3d: Keypoints | None = None
    joints2d: Keypoints | None = None
    camera: Camera | None = None
    captions: tuple[Caption, ...] = ()
    dialogue: tuple[Turn, ...] = ()
    flags: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise PoseRftError(f"Sample key {self.key!r} of {self.dataset} may hold only letters, digits, _ and -.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.to_members() == other.to_members()

    __hash__ = None  # type: ignore[assignment]

    @property
    def problem(self) -> tuple[str, str] | None:
        """Why this record is invalid, as reason and detail of a `Defect`; None for a valid record.

        Checks what a reader cannot see while it parses a file: text that cannot be stored, a box that shows nobody.
        """
        texts = (self.subject, self.sequence, self.camera_id, *(text for pair in self.provenance for text in pair))
        told = (*(caption.text for caption in self.captions), *(turn.text for turn in self.dialogue))
        for text in (*filter(None, texts), *told):
            if not text.isascii() and not _is_unicode(text):
                return "broken text", f"a lone surrogate in {text[:80]!r}"
        if self.camera is not None and (camera := self.camera.problem) is not None:
            return "broken camera", camera
        if self.box is not None and not SMALLEST_BOX <= self.box.side <= LARGEST_BOX:
            return "box of absurd size", f"{self.box.convention}: a side of {self.box.side:g} px"
        if self.box is not None and self.image is not None:
            half, edges = self.box.side / 2, (self.image.width, self.image.height)
            # Written so that NaN counts as outside.
            if not all(-half < at < edge + half for at, edge in zip(self.box.center, edges, strict=True)):
                x, y = self.box.center
                where = f"centre ({x:g}, {y:g}), side {self.box.side:g}, picture {edges[0]}x{edges[1]}"
                return "box outside the picture", f"{self.box.convention}: {where}"
        return None

    def to_members(self) -> dict[str, bytes]:
        """Returns {extension: content} with deterministic bytes, in a fixed order: image, json, npz.

        Raises:
            InvalidText: a name, caption or turn cannot be encoded as UTF-8 (see `problem`). PoseRftError: a number
                outside the arrays is not finite.
        """
        members: dict[str, bytes] = {}
        meta: dict[str, Any] = {"schema": SCHEMA_VERSION, "valid": {}}
        for name in (*PLAIN, "flags", "provenance"):
            meta[name] = getattr(self, name)
        if self.image is not None:
            members[self.image.extension] = self.image.data
            meta["image"] = {"width": self.image.width, "height": self.image.height}
        meta["box"] = vars(self.box) if self.box else None
        meta["captions"] = [vars(caption) for caption in self.captions]
        meta["dialogue"] = [vars(turn) for turn in self.dialogue]
        arrays: dict[str, np.ndarray] = {}
        for group, names in ARRAYS.items():
            value = getattr(self, group)
            meta["valid"][group] = value is not None
            if value is None:
                continue
            present = {name: getattr(value, name) for name in names if getattr(value, name) is not None}
            arrays |= {f"{group}.{name}": _in_steps(array) for name, array in present.items()}
            meta[group] = {key: item for key, item in vars(value).items() if key not in names}
        try:
            members["json"] = canonical_json(meta).encode()
        except UnicodeEncodeError as error:
            raise InvalidText(
                f"Sample {self.key} of {self.dataset} holds text that is not Unicode ({error.object[error.start]!r})."
            ) from None
        except ValueError:
            raise PoseRftError(f"Sample {self.key} of {self.dataset} holds a number that is not finite.") from None
        if arrays:
            members["npz"] = pack(arrays)
        return members

    @classmethod
    def from_members(cls, members: dict[str, bytes]) -> "Record":
        """Inverse of `to_members`.

        Raises:
            PoseRftError: a member is missing or damaged, or was written by another schema version.
        """
        try:
            meta = from_json(members["json"], allow_inf_nan=False)
            if meta["schema"] != SCHEMA_VERSION:
                raise PoseRftError(
                    f"Sample {meta.get('key')} has schema {meta['schema']}, this version reads {SCHEMA_VERSION}; "
                    "convert again."
                )
            arrays = unpack(members["npz"]) if "npz" in members else {}
            own: dict[str, dict[str, np.ndarray]] = {group: {} for group in GROUPS}
            for name, array in arrays.items():
                group, _, part = name.partition(".")
                own[group][part] = array
            groups = {
                group: kind(**own[group], **meta[group]) for group, kind in GROUPS.items() if meta["valid"][group]
            }
            if meta["valid"]["camera"] and (problem := groups["camera"].problem) is not None:
                raise ValueError(f"a camera with {problem}")
            extension = next((e for e in ("jpg", "png") if e in members), None)
            image = Image(members[extension], extension, **meta["image"]) if extension else None
            box = meta["box"] and Box(tuple(meta["box"]["center"]), meta["box"]["side"], meta["box"]["convention"])
            return cls(
                **{name: meta[name] for name in PLAIN},
                **groups,
                image=image,
                box=box,
                captions=tuple(Caption(**caption) for caption in meta["captions"]),
                dialogue=tuple(Turn(**turn) for turn in meta["dialogue"]),
                flags=tuple(meta["flags"]),
                provenance=tuple((name, text) for name, text in meta["provenance"]),
            )
        except DAMAGE as error:
            raise PoseRftError(
                f"A sample's members {sorted(members)} are damaged ({error}); run `pose-rft shards verify`."
            ) from None

    def flagged(self, *flags: str) -> "Record":
        """Returns a copy of the record with more flags, e.g. `drifted`."""
        return replace(self, flags=tuple(sorted({*self.flags, *flags})))


@dataclass(frozen=True)
class Defect:
    """A sample that could not be created: its source and the reason, as a row of defects.parquet.

    Texts may quote a release; characters that would break a line, a terminal or UTF-8 are escaped.
    """

    unit: str
    row: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():  # one line of UTF-8, whatever the release holds
            object.__setattr__(self, name, visible(value))
