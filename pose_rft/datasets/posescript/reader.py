"""PoseScript: captions of AMASS poses (naver/posescript, src/text2pose/{config,data,utils}.py).

Two layouts are read. v2: `posescript_{human,auto}_*.json`, `ids_2_dataset_sequence_and_frame_index_*.json`,
`{split}_ids_*.json`; v1: `human*.json`, `automatic_{A..F}.json` and the same names without a count. The same id means
different poses in v1 and v2, so their files are never mixed. Captions are a string or a list. A split holds the ids of
its file that have at least one caption of the requested kinds.

A pose is one frame, at its native rate, of an AMASS file (z up): SMPL+H's `*_poses.npz` with 52 joints or SMPL-X's
`*_stageii.npz` with 55. Joints 0..21 of both are SMPL's; the hands are not labelled. PoseScript was built on the SMPL+H
files, which are preferred: 5,000 SMPL-X files declare a different frame rate (nghorbani/amass #49) and some are missing
(vchoutas/smplx #164), so samples from them are flagged `amass_smplx`. The root's heading is removed as in PoseScript;
the raw root stays in provenance. AMASS has renamed subset folders over time, so the stored name is tried first, then
its aliases in both directions.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import remove_heading
from pose_rft.datasets.common.base import Reader, Unit, check_split, existing_files, require, sample_key
from pose_rft.errors import PoseRftError
from pose_rft.io.find import find
from pose_rft.io.json_files import read_json
from pose_rft.io.npz import read_npz
from pose_rft.params import Fraction, Section
from pose_rft.record import Caption, CaptionKind, Defect, Record, Smpl

# Old folder → newer folder (ChatPose utils/posescript_dataset.py; both MPI_Limits names occur).
ALIASES = (
    ("BioMotionLab_NTroje", "BMLrub"),
    ("DFaust_67", "DFaust"),
    ("Eyes_Japan_Dataset", "EyesJapanDataset"),
    ("MPI_HDM05", "HDM05"),
    ("MPI_Limits", "PosePrior"),
    ("MPI_Limits", "MPI_Limits_PosePrior"),
    ("MPI_Limits_PosePrior", "PosePrior"),
    ("MPI_mosh", "MoSh"),
    ("SSM_synced", "SSM"),
    ("TCD_handMocap", "TCDHands"),
    ("Transitions_mocap", "Transitions"),
)
ENDINGS = ("_poses.npz", "_stageii.npz")  # SMPL+H, SMPL-X
BODY_JOINTS = 22
BODY_MODELS = {52 * 3: "smplh", 55 * 3: "smplx"}  # by the width of `poses`
PLACES = "ids_2_dataset_sequence_and_frame_index"
CAPTION_FILES: Mapping[CaptionKind, Mapping[int, str]] = {  # by version; human captions come first
    "human": {2: "posescript_human_*.json", 1: "human*.json"},
    "automatic": {2: "posescript_auto_*.json", 1: "automatic_[A-F].json"},
}


class PoseScriptParams(Section):
    """`datasets.posescript` in params.yaml."""

    root: str = "posescript"
    amass: str = "amass"
    splits: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
    kinds: tuple[Literal["human", "automatic"], ...] = ("human", "automatic")
    max_defect_rate: Fraction = 0.01


class PoseScript(Reader):
    """Reader of PoseScript; a unit is one AMASS file with all its poses of the split."""

    Params = PoseScriptParams
    params: PoseScriptParams
    dataset = "posescript"
    licence = "PoseScript: see the licence in its archive (non-commercial); AMASS: non-commercial research"
    where_to_get = (
        "https://europe.naverlabs.com/research/computer-vision/posescript/ (AMASS: https://amass.is.tue.mpg.de)"
    )

    def __init__(self, root: Path, params: PoseScriptParams, body_model: Path, jpeg_quality: int) -> None:
        super().__init__(root, params, body_model, jpeg_quality)
        unpacked = self.root / "posescript_release"
        self.root = unpacked if unpacked.is_dir() else self.root
        self.amass = root / params.amass

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "val", "test"), self.dataset)
        require(self.amass, self.dataset, "https://amass.is.tue.mpg.de (SMPL+H G)")
        captions = self._captions()
        path = self._file(PLACES)
        places = read_json(path, dict)
        by_file: dict[str, list[tuple[int, int, tuple[Caption, ...]]]] = defaultdict(list)
        for number in self._ids(split):
            if number in captions:
                name, frame = _place(places.get(str(number)), number, path)
                by_file[name].append((number, frame, tuple(captions[number])))
        units = [
            # The first pose's id makes the key unique, because sanitised names may collide.
            Unit(sample_key(*PurePosixPath(name).with_suffix("").parts, rows[0][0]), len(rows), (name, tuple(rows)))
            for name, rows in by_file.items()
        ]
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        name, rows = unit.payload
        path = find_amass(self.amass, name)
        if path is None:
            yield from (Defect(unit.key, str(number), "missing AMASS file", name) for number, _, _ in rows)
            return
        try:
            poses, body_model = read_poses(path)
        except PoseRftError as error:
            yield from (Defect(unit.key, str(number), "damaged AMASS file", str(error)) for number, _, _ in rows)
            return
        flags = ("amass_smplx", "transl_unknown") if body_model == "smplx" else ("transl_unknown",)
        sound = sorted({f for _, f, _ in rows if 0 <= f < len(poses) and np.isfinite(poses[f]).all()})
        roots = dict(zip(sound, without_heading(poses[sound, 0]), strict=True)) if sound else {}
        for number, frame, captions in rows:
            if not 0 <= frame < len(poses):
                yield Defect(unit.key, str(number), "frame out of range", f"{name}: {frame} of {len(poses)}")
                continue
            pose = poses[frame]
            if frame not in roots:
                yield Defect(unit.key, str(number), "pose not finite", f"{name}: frame {frame}")
                continue
            body = np.zeros((24, 3))
            body[:BODY_JOINTS] = pose
            yield Record(
                key=sample_key("posescript", number),
                dataset=self.dataset,
                split=split,
                subject=sample_key(*PurePosixPath(name).parts[:-1]),
                sequence=unit.key,
                frame=frame,
                smpl=Smpl(
                    global_orient=roots[frame],
                    body_pose=body[1:],
                    betas=np.zeros(10),
                    transl=np.zeros(3),
                    valid=np.arange(24) < BODY_JOINTS,
                    gender="neutral",
                    body_model=body_model,
                    frame="amass",
                    source="amass",
                ),
                captions=captions,
                flags=flags,
                provenance=(
                    ("smpl", f"{name} frame {frame}, heading removed"),
                    ("raw_global_orient", " ".join(repr(float(value)) for value in pose[0])),
                    ("betas", "0 by PoseScript's convention"),
                ),
            )

    def inventory(self) -> list[Path]:
        return existing_files(self.root, ["*.json"]) + existing_files(
            self.amass, [f"*/*/*{ending}" for ending in ENDINGS]
        )

    @property
    def _version(self) -> int:
        """2 if the `PLACES` file has a count in its name, as in v2; else 1."""
        return 2 if find(self.root, f"{PLACES}_*.json") else 1

    def _file(self, stem: str) -> Path:
        pattern = f"{stem}_*.json" if self._version == 2 else f"{stem}.json"
        found = find(self.root, pattern)
        if not found:
            raise PoseRftError(
                f"posescript: {self.root} has no {pattern}; unpack posescript_release_v2.zip there, "
                f"from {self.where_to_get}."
            )
        return found[0]

    def _ids(self, split: str) -> list[int]:
        """Returns the pose ids of a split, ascending, without duplicates."""
        path = self._file(f"{split}_ids")
        try:
            return sorted({int(number) for number in read_json(path, list)})
        except (TypeError, ValueError, OverflowError) as error:
            raise PoseRftError(f"{path} holds what is no pose id ({error}); unpack the release again.") from None

    def _captions(self) -> dict[int, list[Caption]]:
        """Returns captions by pose id, human captions first; poses without captions are left out."""
        captions: dict[int, list[Caption]] = defaultdict(list)
        for kind, patterns in CAPTION_FILES.items():
            if kind not in self.params.kinds:
                continue
            pattern = patterns[self._version]
            files = find(self.root, pattern)
            if not files:
                raise PoseRftError(
                    f"posescript: {self.root} has no {pattern} for the {kind} captions; unpack the release again."
                )
            for path in files:
                for number, texts in read_json(path, dict).items():
                    listed = [texts] if isinstance(texts, str) else texts
                    if not number.isdecimal() or not isinstance(listed, list):
                        raise PoseRftError(f"{path}: {number!r:.40} has no list of captions; unpack the release again.")
                    for text in listed:
                        if not isinstance(text, str):
                            raise PoseRftError(f"{path}: a caption of {number} is no text; unpack the release again.")
                        if text.strip():
                            captions[int(number)].append(Caption(text.strip(), kind))
        return captions


def _place(value: Any, number: int, path: Path) -> tuple[str, int]:
    """Returns the AMASS file and frame of a pose.

    Raises:
        PoseRftError: not `["AMASS", "Subset/subject/sequence_poses.npz", frame]`.
    """
    match value:
        case ["AMASS", str(name), int(frame)] if name.count("/") >= 2:
            return name, frame
    raise PoseRftError(
        f"{path}: pose {number} has {value!r:.80}, expected [AMASS, file, frame] as PoseScript; unpack it again."
    )


def find_amass(root: Path, name: str) -> Path | None:
    """Returns the AMASS file of a pose, given SMPL+H's `Subset/subject/sequence_poses.npz`; None if there is none.

    The subset may have another name (see `ALIASES`). SMPL-X file names end in `_stageii.npz` and have `_` for spaces.
    """
    parts = PurePosixPath(name).parts
    if ".." in parts or not parts or parts[0] == "/":
        return None
    subset, rest = parts[0], parts[1:]
    folders = [subset, *(new for old, new in ALIASES if old == subset), *(old for old, new in ALIASES if new == subset)]
    smplh, smplx = ENDINGS
    of_smplx = tuple(part.replace(" ", "_") for part in rest[:-1])
    stem = rest[-1].removesuffix(smplh).replace(" ", "_") if rest else ""
    candidates = [root.joinpath(folder, *rest) for folder in folders]
    for subject in (rest[:-1], of_smplx):
        candidates += [root.joinpath(folder, *subject, stem + smplx) for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


def read_poses(path: Path) -> tuple[np.ndarray, str]:
    """Reads (N, 22, 3) axis-angle radians of the body, and `smplh` or `smplx`, from an AMASS file.

    Raises:
        PoseRftError: not an AMASS file.
    """
    poses = read_npz(path, ["poses"]).get("poses")
    if poses is None or poses.ndim != 2 or poses.shape[1] not in BODY_MODELS or poses.dtype.kind != "f":
        found = "no poses" if poses is None else f"poses of shape {poses.shape}"
        raise PoseRftError(
            f"{path} has {found}, expected (N, 156) of SMPL+H G or (N, 165) of SMPL-X; download it again."
        )
    return poses[:, : 3 * BODY_JOINTS].reshape(-1, BODY_JOINTS, 3), BODY_MODELS[poses.shape[1]]


def without_heading(vectors: np.ndarray) -> np.ndarray:
    """Sets the z angle of the ZYX Euler angles of axis-angle roots (N, 3), AMASS frame, to 0."""
    return Rotation.from_matrix(remove_heading(Rotation.from_rotvec(vectors).as_matrix())).as_rotvec()


READER = PoseScript
