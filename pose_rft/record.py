"""One sample as a frozen, checked thing, and its form as WebDataset members.

A `Record` is one person in one image, or one text-pose pair, or one VQA dialogue. Readers of releases make Records,
the shard writer stores them, the loader gives them back: `Record.from_members(record.to_members()) == record`.

Units and frames: metres, radians, pixels; camera frame x right, y down, z forward. Text-pose samples (PoseScript) are
in the AMASS frame (z up); `Smpl.frame` says which. What is unknown is None, never a zero-filled array.
"""

import io
import json
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from pose_rft.errors import PoseRftError
from pose_rft.io.atomic import canonical_json
from pose_rft.io.parsing import DAMAGE

KEY = re.compile(r"[A-Za-z0-9_-]+")
SCHEMA_VERSION = 1
NPY_PREFIX = 10  # bytes of a .npy file (version 1.0) before the text of its header
ZIP_MEMBER, ZIP_ENTRY, ZIP_END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s2B5H3I5H2I"), struct.Struct("<4s4H2IH")
ZIP_FORM = (20, 0, zipfile.ZIP_STORED, 0, 0x21)  # version 2.0, no flags, 1980-01-01 00:00
CaptionKind = Literal["human", "automatic"]


@dataclass(frozen=True)
class Image:
    """Encoded bytes as the release has them (video frames: encoded once); width and height as decoded, px."""

    data: bytes = field(repr=False)
    extension: Literal["jpg", "png"]
    width: int
    height: int


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
    (the hands of SMPL-H/SMPL-X sources are not). `frame` is `camera` or `amass`; `source` e.g. `neuralannot`, `eft`.
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
        shapes = {"global_orient": (3,), "body_pose": (23, 3), "betas": (10,), "transl": (3,), "valid": (24,)}
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name), dtype=bool if name == "valid" else np.float32)
            if value.shape != shape:
                raise PoseRftError(f"SMPL {name} has shape {value.shape}, expected {shape}.")
            if not np.isfinite(value).all():
                raise PoseRftError(f"SMPL {name} from {self.source} holds a number that is not finite.")
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class Keypoints:
    """points: (J, 3) px + confidence in 2D, (J, 4) metres in the camera frame (absolute) + confidence in 3D.

    `joint_set` names the release's own order, see `pose_rft.body.joints`; mapping happens at load time.
    """

    points: np.ndarray
    joint_set: str

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float32)
        if points.ndim != 2 or points.shape[1] not in (3, 4):
            raise PoseRftError(f"{self.joint_set} keypoints have shape {points.shape}, expected (J, 3) or (J, 4).")
        if not np.isfinite(points).all():
            raise PoseRftError(f"{self.joint_set} keypoints hold a number that is not finite.")
        object.__setattr__(self, "points", points)


@dataclass(frozen=True, eq=False)
class Camera:
    """K (3, 3) px; world to camera `X_cam = R X_world + t`, t (3) metres; distortion coefficients of a named model."""

    K: np.ndarray
    R: np.ndarray | None = None
    t: np.ndarray | None = None
    distortion: np.ndarray | None = None
    distortion_model: str | None = None

    def __post_init__(self) -> None:
        for name in ("K", "R", "t", "distortion"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(value, dtype=np.float64))


@dataclass(frozen=True)
class Caption:
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

    def to_members(self) -> dict[str, bytes]:
        """{extension: content} in a fixed order and with fixed bytes: image, json, npz."""
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
            arrays |= {f"{group}.{name}": array for name, array in present.items()}
            meta[group] = {key: item for key, item in vars(value).items() if key not in names}
        members["json"] = canonical_json(meta).encode()
        if arrays:
            members["npz"] = _npz(arrays)
        return members

    @classmethod
    def from_members(cls, members: dict[str, bytes]) -> "Record":
        """Inverse of `to_members`.

        Raises:
            PoseRftError: a member is missing or damaged, or was written by another schema version.
        """
        try:
            meta = json.loads(members["json"])
            if meta["schema"] != SCHEMA_VERSION:
                raise PoseRftError(
                    f"Sample {meta.get('key')} has schema {meta['schema']}, this version reads {SCHEMA_VERSION}; "
                    "convert again."
                )
            arrays = _read_npz(members["npz"]) if "npz" in members else {}
            groups = {}
            for group, kind in GROUPS.items():
                if meta["valid"][group]:
                    own = {name.split(".", 1)[1]: a for name, a in arrays.items() if name.startswith(group + ".")}
                    groups[group] = kind(**own, **meta[group])
            extension = next((e for e in ("jpg", "png") if e in members), None)
            image = Image(members[extension], extension, **meta["image"]) if extension else None  # type: ignore[arg-type]
            box = meta["box"] and Box(tuple(meta["box"]["center"]), meta["box"]["side"], meta["box"]["convention"])
            plain = {
                name: meta[name] for name in ("key", "dataset", "split", "subject", "sequence", "camera_id", "frame")
            }
            return cls(
                **plain,
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
        """The same record with more flags, e.g. `drifted`."""
        return replace(self, flags=tuple(sorted({*self.flags, *flags})))


@dataclass(frozen=True)
class Defect:
    """A sample that could not be made: where it should have come from and why, as a row of defects.parquet."""

    unit: str
    row: str
    reason: str
    detail: str


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz with the same bytes for the same arrays (np.savez stamps the time).

    Stored, not packed: small arrays of floats do not shrink. Written here field by field (PKWARE APPNOTE 4.3), because
    zipfile takes longer for a sample's arrays than its picture takes to be checked.
    """
    content, directory = bytearray(), bytearray()
    for name, array in arrays.items():
        member = f"{name}.npy".encode()
        stored = _npy_start(array.shape, array.dtype) + np.ascontiguousarray(array).tobytes()
        form = (zlib.crc32(stored), len(stored), len(stored), len(member), 0)
        directory += ZIP_ENTRY.pack(b"PK\1\2", 20, 3, *ZIP_FORM, *form, 0, 0, 0, 0o600 << 16, len(content)) + member
        content += ZIP_MEMBER.pack(b"PK\3\4", *ZIP_FORM, *form) + member + stored
    end = ZIP_END.pack(b"PK\5\6", 0, 0, len(arrays), len(arrays), len(directory), len(content), 0)
    return bytes(content + directory + end)


@lru_cache(maxsize=1024)
def _npy_start(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """What stands in a .npy before the numbers."""
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _read_npz(content: bytes) -> dict[str, np.ndarray]:
    """Inverse of `_npz`. np.load and zipfile would take longer than all the rest of reading a sample.

    Raises:
        ValueError, struct.error: not what `_npz` writes, or damaged (every array has its checksum).
    """
    arrays: dict[str, np.ndarray] = {}
    position = 0
    while content[position : position + 4] == b"PK\3\4":
        _, *form, checksum, packed, size, length, extra = ZIP_MEMBER.unpack_from(content, position)
        begin = position + ZIP_MEMBER.size + length
        position = begin + size
        name, stored = content[begin - length : begin].decode(), content[begin:position]
        if tuple(form) != ZIP_FORM or packed != size or extra:
            raise ValueError(f"{name} is packed otherwise than this format ever is")
        if zlib.crc32(stored) != checksum:
            raise ValueError(f"{name} has another checksum")
        start = NPY_PREFIX + int.from_bytes(stored[8:NPY_PREFIX], "little")
        shape, dtype = _npy_header(stored[:start])
        arrays[name.removesuffix(".npy")] = np.frombuffer(stored, dtype, offset=start).reshape(shape).copy()
    # The directory of all members and the end follow; a cut or foreign archive has another number of members there.
    if len(content) < position + ZIP_END.size or ZIP_END.unpack(content[-ZIP_END.size :])[3] != len(arrays):
        raise ValueError("an archive without its end")
    return arrays


@lru_cache(maxsize=1024)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the first bytes of a .npy declare.

    Raises:
        ValueError: not the header of a plain array as `_npz` writes it.
    """
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of another .npy version")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran_order or dtype.hasobject:
        raise ValueError("an array that is not plain numbers in C order")
    return shape, dtype
