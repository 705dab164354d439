"""PoseScript: sentences about poses of AMASS (naver/posescript, src/text2pose/{config,data,utils}.py).

Two layouts are read. v2: `posescript_{human,auto}_*.json`, `ids_2_dataset_sequence_and_frame_index_*.json`,
`{split}_ids_*.json`; v1: `human*.json`, `automatic_{A..F}.json` and the same names without a count. Captions are a
string or a list. The split holds the ids of its file that have at least one caption of the kinds asked for.

A pose is one frame, at its native rate, of an AMASS `*_poses.npz` (SMPL+H, z up): rows 0..21 of its 52 joints are
SMPL's, the hands are not labelled. The root's heading is removed as PoseScript does; the raw root stays in provenance.
AMASS renamed its subset folders over time: the stored name is tried, then its alias in both directions.
"""

import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import remove_heading
from pose_rft.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.params import Fraction, Section
from pose_rft.record import Caption, CaptionKind, Defect, Record, Smpl
from pose_rft.releases.base import Unit, check_split, existing_files, require, sample_key

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
SMPLH_JOINTS = 52
BODY_JOINTS = 22
V1_AUTOMATIC = "automatic_[A-F].json"


class PoseScriptParams(Section):
    """`datasets.posescript` in params.yaml."""

    root: str = "posescript"
    amass: str = "amass"
    splits: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
    kinds: tuple[Literal["human", "automatic"], ...] = ("human", "automatic")
    max_defect_rate: Fraction = 0.01


class PoseScript:
    """Reader of PoseScript; a unit is one AMASS file with all its poses of the split."""

    Params = PoseScriptParams
    dataset = "posescript"
    licence = "PoseScript: see the licence in its archive (non-commercial); AMASS: non-commercial research"
    where_to_get = (
        "https://europe.naverlabs.com/research/computer-vision/posescript/ (AMASS: https://amass.is.tue.mpg.de)"
    )
    published_counts: Mapping[str, Mapping[str, int]] = {
        "all": {"poses_v2": 100_000, "human_v2": 6_293},
        "test": {"human_v2": 1_234},
    }

    def __init__(self, root: Path, params: PoseScriptParams, body_model: Path, jpeg_quality: int) -> None:
        self.params = params
        release = root / params.root
        self.root = release / "posescript_release" if (release / "posescript_release").is_dir() else release
        self.amass = root / params.amass

    def units(self, split: str) -> list[Unit]:
        check_split(split, ("train", "val", "test"), self.dataset)
        require(self.amass, self.dataset, "https://amass.is.tue.mpg.de (SMPL+H G)")
        captions = self._captions()
        places = read_json(self._file("ids_2_dataset_sequence_and_frame_index"), dict)
        by_file: dict[str, list[tuple[int, int, tuple[Caption, ...]]]] = defaultdict(list)
        for number in sorted(read_json(self._file(f"{split}_ids"), list)):
            if captions.get(int(number)):
                if str(number) not in places:
                    raise PoseRftError(f"{self.root}: pose {number} of {split} has no AMASS file; unpack it again.")
                _, name, frame = places[str(number)]
                by_file[name].append((int(number), int(frame), tuple(captions[int(number)])))
        units = [
            # The first pose's id makes the key unique: different names may be alike once they are made clean.
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
            poses = read_poses(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            yield from (
                Defect(unit.key, str(number), "damaged AMASS file", f"{name}: {error}") for number, _, _ in rows
            )
            return
        for number, frame, captions in rows:
            if not 0 <= frame < len(poses):
                yield Defect(unit.key, str(number), "frame out of range", f"{name}: {frame} of {len(poses)}")
                continue
            pose = poses[frame].reshape(SMPLH_JOINTS, 3)
            if not np.isfinite(pose).all():
                yield Defect(unit.key, str(number), "pose not finite", f"{name}: frame {frame}")
                continue
            body = np.zeros((24, 3))
            body[:BODY_JOINTS] = pose[:BODY_JOINTS]
            yield Record(
                key=sample_key("posescript", number),
                dataset=self.dataset,
                split=split,
                subject=sample_key(*PurePosixPath(name).parts[:-1]),
                sequence=unit.key,
                frame=frame,
                smpl=Smpl(
                    global_orient=without_heading(body[0]),
                    body_pose=body[1:],
                    betas=np.zeros(10),
                    transl=np.zeros(3),
                    valid=np.arange(24) < BODY_JOINTS,
                    gender="neutral",
                    body_model="smplh",
                    frame="amass",
                    source="amass",
                ),
                captions=captions,
                flags=("transl_unknown",),
                provenance=(
                    ("smpl", f"{name} frame {frame}, heading removed"),
                    ("raw_global_orient", " ".join(repr(float(value)) for value in pose[0])),
                    ("betas", "0 by PoseScript's convention"),
                ),
            )

    def inventory(self) -> list[Path]:
        return existing_files(self.root, ["*.json"]) + existing_files(self.amass, ["*/*/*_poses.npz"])

    def _file(self, stem: str) -> Path:
        """v2's file with a count in its name, else v1's without."""
        found = [*sorted(self.root.glob(f"{stem}_*.json")), *sorted(self.root.glob(f"{stem}.json"))]
        if not found:
            raise PoseRftError(
                f"posescript: {self.root} has no {stem}*.json; unpack posescript_release_v2.zip there, "
                f"from {self.where_to_get}."
            )
        return found[0]

    def _captions(self) -> dict[int, list[Caption]]:
        """Captions by pose id, human ones first."""
        kinds: tuple[tuple[CaptionKind, str, str], ...] = (
            ("human", "posescript_human_*.json", "human*.json"),
            ("automatic", "posescript_auto_*.json", V1_AUTOMATIC),
        )
        captions: dict[int, list[Caption]] = defaultdict(list)
        for kind, v2, v1 in kinds:
            if kind not in self.params.kinds:
                continue
            files = sorted(self.root.glob(v2)) or sorted(self.root.glob(v1))
            if not files:
                raise PoseRftError(f"posescript: {self.root} has neither {v2} nor {v1} for the {kind} captions.")
            for path in files:
                for number, texts in read_json(path, dict).items():
                    for text in [texts] if isinstance(texts, str) else texts:
                        captions[int(number)].append(Caption(text.strip(), kind))
        return captions


def find_amass(root: Path, name: str) -> Path | None:
    """The AMASS file `Subset/subject/seq_poses.npz` under the stored subset name or one of its aliases."""
    parts = PurePosixPath(name).parts
    if ".." in parts or not parts or parts[0] == "/":
        return None
    subset, rest = parts[0], parts[1:]
    names = [subset, *(new for old, new in ALIASES if old == subset), *(old for old, new in ALIASES if new == subset)]
    return next((path for folder in names if (path := root.joinpath(folder, *rest)).is_file()), None)


def read_poses(path: Path) -> np.ndarray:
    """`poses` (N, 156) radians of an SMPL+H AMASS file.

    Raises:
        ValueError: another width, such as the 165 of SMPL-X. OSError, KeyError, BadZipFile: not such a file.
    """
    with np.load(path, allow_pickle=False) as content:
        poses = content["poses"]
    if poses.ndim != 2 or poses.shape[1] != SMPLH_JOINTS * 3:
        raise ValueError(f"poses have shape {poses.shape}, expected (N, 156): the SMPL+H G files")
    return poses


def without_heading(vector: np.ndarray) -> np.ndarray:
    """Axis-angle root (3,) in the AMASS frame with the z angle of its ZYX Euler angles set to 0."""
    root = torch.from_numpy(Rotation.from_rotvec(vector).as_matrix())
    return Rotation.from_matrix(remove_heading(root).numpy()).as_rotvec()
