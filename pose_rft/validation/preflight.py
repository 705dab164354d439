"""`pose-rft doctor data`: is everything there, before hours are spent on converting it?

Looks at names and sizes, plans every split (annotations are read, no picture is decoded), and estimates time and disk
of the shards. What a data set needs is listed here as patterns below its folder; what a reader finds wrong is its own
sentence. Time comes from the rates that `python -m benchmarks.convert` measured (docs/performance.md; PoseScript's from
the conversion of the sample), disk from the sizes of the release's own pictures, which pass into the shards as they
are, or for videos from the frames that the benchmark encoded. Both are for telling minutes from hours.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pose_rft.datasets.registry import DataParams, open_release, reader_class
from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from pose_rft.shards.plan import ShardParams

GIB = 1 << 30
POSESCRIPT = ("", "posescript_release/")
H36M_ARRAYS = ("annotation_body3d/fps*/h36m_*.npz",)  # each holds all videos of a split
H36M_VIDEOS = 600  # which are at most so many
PICTURES_LOOKED_AT = 200


Patterns = tuple[str, ...]


@dataclass(frozen=True)
class Need:
    """Files below a data set's folder (or `other` folder of the root): at least `fewest` must match the patterns.

    Several patterns are layouts that the reader takes alike. None holds `**`, which passes by linked folders.
    """

    patterns: str | Patterns | Callable[[Any], Patterns]  # or by the reader's parameters
    what: str
    fewest: int | Callable[[Any], int] = 1
    other: str | None = None  # key of the data set's parameters that names another folder

    def layouts(self, params: Any) -> Patterns:
        patterns = self.patterns(params) if callable(self.patterns) else self.patterns
        return (patterns,) if isinstance(patterns, str) else patterns


@dataclass(frozen=True)
class Cost:
    """Of one sample: samples per second of one worker, and bytes in the shards beside its picture.

    pictures: pattern of the pictures that are copied, below the data set's folder or `other` (see `Need`).
    """

    rate: float
    sample_bytes: int
    pictures: str | None = None
    other: str | None = None

    def bytes_of_sample(self, folder: Path) -> int:
        """With the mean size of the first pictures that are there."""
        found = islice(folder.glob(self.pictures), PICTURES_LOOKED_AT) if self.pictures and folder.is_dir() else ()
        sizes = [path.stat().st_size for path in found]
        return self.sample_bytes + (sum(sizes) // len(sizes) if sizes else 0)


def _by_split(**counts: int) -> Callable[[Any], int]:
    """The sum over the splits that the parameters ask for."""
    return lambda params: sum(count for split, count in counts.items() if split in params.splits)


def _h36m_videos(params: Any) -> int:
    known = {"train": (1, 5, 6, 7, 8), "p1": (9, 11), "p2": (9, 11)}
    cameras = {split: 1 if split == "p2" and "p1" not in params.splits else 4 for split in params.splits}
    subjects = {n: cameras[s] for s in params.splits for n in known[s] if n in (params.subjects or known[s])}
    missing = 11 in subjects and subjects[11] == 4  # one video is not in the release
    return sum(30 * count for count in subjects.values()) - missing


def _h36m_poses(kind: str) -> Patterns:
    folders = ("MyPoseFeatures/{}", "Poses_{}", "{}")
    return tuple(f"[Ss][0-9]*/{folder.format(kind)}/*.cdf" for folder in folders)


def _coco_folders(params: Any) -> Patterns:
    folders = [f"{split}{params.year}" for split in params.splits]
    return tuple(f"{folder}/{below}*.*" for folder in folders for below in ("", "*/"))


def _coco_pictures(params: Any) -> int:
    sizes = {("train", 2014): 82_783, ("val", 2014): 40_504, ("train", 2017): 118_287, ("val", 2017): 5_000}
    return sum(sizes[split, params.year] for split in params.splits)


def _mpii_labels(params: Any) -> Patterns:
    if params.labels is None:
        return tuple(f"{below}mpii_human_pose_v1_u12_1.mat" for below in ("", "*/", "*/*/"))
    names = {"train": "train", "val": "valid"}
    return tuple(dict.fromkeys(params.labels.replace("{split}", names[split]) for split in params.splits))


def _mpii_pictures(params: Any) -> int:
    counts = {"train": 14_679, "val": 2_729}  # of the label files; the release has those of its test set too
    return 24_000 if params.labels is None else sum(counts[split] for split in params.splits)


NEEDS: Mapping[str, tuple[Need, ...]] = {
    "h36m": (
        Need("metadata.xml", "names, lengths and cameras (comes with anibali/h36m-fetch)"),
        Need(
            ("[Ss][0-9]*/Videos/*.mp4", "images/S[0-9]*/S[0-9]*_*"),
            "videos (Videos_S#.tgz), or folders of their frames as MMPose extracts them",
            _h36m_videos,
        ),
        Need(
            (*_h36m_poses("D3_Positions_mono"), *H36M_ARRAYS),
            "3D poses (Poses_D3_Positions_mono_S#.tgz, or MMPose's annotation_body3d)",
            _h36m_videos,
        ),
        Need(
            (*_h36m_poses("D2_Positions"), *H36M_ARRAYS),
            "2D poses (Poses_D2_Positions_S#.tgz, or MMPose's annotation_body3d)",
            _h36m_videos,
        ),
        Need("[Ss][0-9]*/MySegmentsMat/ground_truth_b?/*.mat", "person boxes (optional: else from 2D joints)", 0),
    ),
    "mpi_inf_3dhp": (
        Need("S[1-8]/Seq[12]/annot.mat", "poses of 8 subjects, 2 sequences each", _by_split(train=16)),
        Need("S[1-8]/Seq[12]/camera.calibration", "cameras", _by_split(train=16)),
        Need(
            (
                *("S[1-8]/Seq[12]/imageSequence/video_*", "S[1-8]/Seq[12]/imageFrames/video_*"),
                *("images/S[1-8]_Seq[12]_Cam*.jpg", "S[1-8]_Seq[12]_Cam*.jpg"),
            ),
            "videos or frames of the 8 cameras at chest height",
            _by_split(train=128),
        ),
        Need("mpi_inf_3dhp_test_set/TS[1-6]/annot_data.mat", "test set", _by_split(test=6)),
    ),
    "coco": (
        Need("annotations/person_keypoints_*.json", "keypoints (annotations_trainval20xx.zip)"),
        Need(_coco_folders, "photographs (train20xx.zip, val20xx.zip)", _coco_pictures),
    ),
    "mpii": (
        Need(_mpii_labels, "annotations (mpii_human_pose_v1_u12_2.zip, or the files of `labels`)"),
        Need(("images/*.*", "images/*/*.*"), "photographs", _mpii_pictures),
    ),
    "posescript": (
        Need(
            tuple(f"{below}ids_2_dataset_sequence_and_frame_index*.json" for below in POSESCRIPT),
            "where poses come from (posescript_release_v2.zip)",
        ),
        Need(tuple(f"{below}*human*.json" for below in POSESCRIPT), "human captions"),
        Need(
            ("*/*/*_poses.npz", "*/*/*_stageii.npz"),
            "AMASS, SMPL+H G or SMPL-X, 19 subsets",
            10_000,
            other="amass",
        ),
    ),
    "bedlam": (
        Need("training_labels/all_npz_12_training/*.npz", "labels (all_npz_12_training.zip)", 26),
        Need("training_images/*/png", "picture folders (26 tars)", 26),
    ),
    "3dpw": (
        Need("sequenceFiles/*/*.pkl", "sequences (sequenceFiles.zip)", _by_split(train=24, validation=12, test=24)),
        Need("imageFiles/*", "picture folders (imageFiles.zip)", _by_split(train=24, validation=12, test=24)),
    ),
    "llava_instruct": (
        Need(lambda params: (params.file,), "dialogues"),
        Need(
            tuple(f"{year}/*.jpg" for year in ("train2017", "train2014", "val2014", "val2017")),
            "COCO photographs (train2017, or train2014 and val2014)",
            81_479,
            other="images",
        ),
    ),
}
RECORD_BYTES = 5_000  # labels and camera of a sample, and the headers of the tar
COSTS: Mapping[str, Cost] = {
    "h36m": Cost(65, 82_000),
    "mpi_inf_3dhp": Cost(14, 236_000),
    "coco": Cost(950, RECORD_BYTES, "*20*/*.jpg"),
    "mpii": Cost(480, RECORD_BYTES, "images/*.jpg"),
    "posescript": Cost(1_200, RECORD_BYTES),
    "bedlam": Cost(120, RECORD_BYTES, "training_images/*/png/*/*.png"),
    "3dpw": Cost(200, RECORD_BYTES, "imageFiles/*/*.jpg"),
    "llava_instruct": Cost(1_170, RECORD_BYTES, "*20*/*.jpg", other="images"),
}
BODY_FILES = ("smpl/*_NEUTRAL.pkl", "J_regressor_h36m.npy")
GENDERED = ("smpl/*_MALE.pkl", "smpl/*_FEMALE.pkl")


@dataclass(frozen=True)
class Finding:
    """One line of the examination: what was looked for, whether it is enough, and what to do if not."""

    dataset: str
    what: str
    found: str
    ok: bool
    advice: str = ""


@dataclass(frozen=True)
class Examination:
    """All findings; samples, seconds and bytes of the shards of every data set that could be planned; `free` bytes."""

    findings: tuple[Finding, ...]
    costs: Mapping[str, tuple[int, float, int]]
    free: int

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)


def examine(data: DataParams, datasets: Mapping[str, Any], shards: ShardParams, out: Path) -> Examination:
    """Examines every data set of `datasets` (params.yaml), the body model, and the disk of `out`."""
    findings: list[Finding] = []
    costs: dict[str, tuple[int, float, int]] = {}
    for name in datasets:
        own = list(_examine_set(name, data, datasets, shards, costs))
        findings += own
    findings += _examine_body(data.body_model, "3dpw" in datasets)
    free = shutil.disk_usage(next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())).free
    needed = sum(cost for _, _, cost in costs.values())
    enough = free >= needed
    advice = "" if enough else f"make room on the disk of {out}, or move data/ to a larger one"
    findings.append(Finding("disk", f"{_size(needed)} for the shards", f"{_size(free)} free", enough, advice))
    return Examination(tuple(findings), costs, free)


def _examine_set(
    name: str,
    data: DataParams,
    datasets: Mapping[str, Any],
    shards: ShardParams,
    costs: dict[str, tuple[int, float, int]],
) -> Iterator[Finding]:
    reader = reader_class(name)
    where = f"get it from {reader.where_to_get}"
    params = parse(datasets.get(name), reader.Params, f"`datasets.{name}`")
    folder = data.root / params.root
    yield Finding(name, "licence", reader.licence, True)
    yield Finding(name, "folder", str(folder), folder.is_dir(), where)
    if not folder.is_dir():
        return
    for need in NEEDS.get(name, ()):
        place = data.root / getattr(params, need.other) if need.other else folder
        count = _count(place, need.layouts(params))
        whole = need.fewest(params) if callable(need.fewest) else need.fewest
        fewest = whole if data.source == "releases" else min(whole, 1)
        wanted = " or ".join(need.layouts(params))
        advice = "" if count >= fewest else f"expected {fewest} × {wanted} in {place}; {where}"
        told = f"{count} of {fewest}" if count < fewest else f"{count}"
        yield Finding(name, need.what, told, count >= fewest, advice)
    try:
        release = open_release(name, data, datasets, shards.jpeg_quality)
        samples = 0
        for split in release.params.splits:
            planned = sum(unit.expected for unit in release.units(split))
            samples += planned
            yield Finding(name, f"split {split}", f"{planned} samples planned", planned > 0, where)
    except PoseRftError as problem:
        yield Finding(name, "plan", "not possible", False, str(problem))
        return
    if name in COSTS:
        cost = COSTS[name]
        size = cost.bytes_of_sample(data.root / getattr(params, cost.other) if cost.other else folder)
        costs[name] = (samples, samples / cost.rate / max(shards.workers, 1), samples * size)


def _count(place: Path, patterns: Patterns) -> int:
    """How many match any of the patterns; an array of a whole split counts as its videos."""
    if not place.is_dir():
        return 0
    return sum(H36M_VIDEOS if pattern in H36M_ARRAYS else 1 for pattern in patterns for _ in place.glob(pattern))


def _examine_body(folder: Path, gendered: bool) -> Iterator[Finding]:
    """Neutral body and regressor; 3DPW's evaluation needs the male and the female body too."""
    where = (
        "get SMPL from https://smpl.is.tue.mpg.de (licence: non-commercial research), J_regressor_h36m.npy from SPIN"
    )
    for pattern in BODY_FILES + (GENDERED if gendered else ()):
        found = [path.name for path in folder.glob(pattern)] or _by_old_name(folder, pattern)
        yield Finding("body_model", pattern, ", ".join(found) or "missing", bool(found), "" if found else where)


def _by_old_name(folder: Path, pattern: str) -> list[str]:
    """v1.0.0 and v1.1.0 call the files basicModel_neutral_…, basicmodel_m_… and basicmodel_f_…"""
    old = {"NEUTRAL": "neutral", "FEMALE": "f", "MALE": "m"}
    kind = next((letter for word, letter in old.items() if f"_{word}." in pattern), None)
    return [path.name for path in folder.glob(f"smpl/*asic*odel_{kind}_*.pkl")] if kind else []


def table(examination: Examination) -> str:
    """The examination as text for a terminal, one block per data set, advice below what is missing."""
    lines: list[str] = []
    for dataset in dict.fromkeys(finding.dataset for finding in examination.findings):
        own = [finding for finding in examination.findings if finding.dataset == dataset]
        lines.append(f"{dataset}: {'complete' if all(finding.ok for finding in own) else 'INCOMPLETE'}")
        width = max(len(finding.what) for finding in own)
        for finding in own:
            lines.append(f"  {'ok     ' if finding.ok else 'MISSING'}  {finding.what:<{width}}  {finding.found}")
            if not finding.ok and finding.advice:
                lines.append(f"           -> {finding.advice}")
        if dataset in examination.costs:
            samples, seconds, size = examination.costs[dataset]
            lines.append(f"  {samples:,} samples, about {_duration(seconds)} and {_size(size)} of shards")
        lines.append("")
    seconds = sum(seconds for _, seconds, _ in examination.costs.values())
    size = sum(size for _, _, size in examination.costs.values())
    free = _size(examination.free)
    lines.append(f"In all about {_duration(seconds)} of conversion and {_size(size)} of shards; {free} free.")
    missing = _missing(examination.findings)
    lines.append("Everything is there." if not missing else f"Not complete: {', '.join(missing)}.")
    return "\n".join(lines)


def _missing(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.dataset for finding in findings if not finding.ok))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.0f} MiB"
