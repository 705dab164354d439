"""Whatever is wrong with a release, its reader says so in one sentence or gives a Defect; it never crashes.

One annotation file is damaged at a time, and the first units are read. `test_no_damage_crashes_a_reader` takes a few
minutes; `FUZZ_CASES` sets how many cases each file gets, `FUZZ_SEED` the first of their seeds.
"""

import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from pose_rft.datasets.names import RELEASES
from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.record import Defect, Record
from tests.support.damage import crashes

CASES = int(os.environ.get("FUZZ_CASES", "120"))
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "1000"))
FIRST_UNITS, FIRST_ROWS = 2, 3
SETTINGS = {
    "h36m": {
        "fits": [{"source": "neuralannot", "path": "Human36M_subject{subject}_SMPL_NeuralAnnot.json"}],
        "every": 1,
    },
    "mpi_inf_3dhp": {"fits": [{"source": "neuralannot", "path": "MPI-INF-3DHP_SMPL_NeuralAnnot.json"}], "every": 1},
    "coco": {"fits": [{"source": "eft", "path": "eft/COCO2014-All-ver01.json"}], "body_joints": 0},
    "mpii": {"fits": [{"source": "eft", "path": "MPII_ver01.json"}]},
    "posescript": {},
    "bedlam": {"smallest_box": 0.0, "largest_overlap": 1.0, "joints_inside": 0, "captions": 1},
    "3dpw": {},
    "llava_instruct": {"heldout_percent": 1.0},
}
# Data set → (split, the file that is damaged: the first that matches).
TARGETS = {
    "h36m": [
        ("train", "h36m/metadata.xml"),
        ("train", "h36m/S1/**/D3_Positions_mono/*.cdf"),
        ("train", "h36m/S1/**/D2_Positions/*.cdf"),
        ("train", "h36m/S1/**/ground_truth_bb/*.mat"),
        ("train", "h36m/S1/Videos/*.mp4"),
        ("train", "h36m/Human36M_subject1_SMPL_NeuralAnnot.json"),
    ],
    "mpi_inf_3dhp": [
        ("train", "mpi_inf_3dhp/S1/Seq1/annot.mat"),
        ("train", "mpi_inf_3dhp/S1/Seq1/camera.calibration"),
        ("train", "mpi_inf_3dhp/S1/Seq1/imageSequence/*.avi"),
        ("train", "mpi_inf_3dhp/MPI-INF-3DHP_SMPL_NeuralAnnot.json"),
        ("test", "mpi_inf_3dhp/mpi_inf_3dhp_test_set/TS5/annot_data.mat"),
    ],
    "coco": [
        ("train", "coco/annotations/person_keypoints_train2017.json"),
        ("train", "coco/eft/COCO2014-All-ver01.json"),
        ("train", "coco/train2017/*.jpg"),
    ],
    "mpii": [("train", "mpii/**/*.mat"), ("train", "mpii/MPII_ver01.json"), ("train", "mpii/images/*.jpg")],
    "posescript": [
        ("train", "posescript/**/posescript_human_*.json"),
        ("train", "posescript/**/ids_2_dataset*.json"),
        ("train", "posescript/**/train_ids_*.json"),
        ("train", "amass/**/*_poses.npz"),
    ],
    "bedlam": [("train", "bedlam/training_labels/**/*.npz"), ("train", "bedlam/**/*.png")],
    "3dpw": [("test", "3dpw/sequenceFiles/test/*.pkl"), ("test", "3dpw/imageFiles/**/*.jpg")],
    "llava_instruct": [("train", "llava_instruct/llava_instruct_150k.json")],
}
ALL = [(dataset, *target) for dataset, targets in TARGETS.items() for target in targets]


@pytest.fixture(scope="module")
def own(miniatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases that these tests may damage (and fix)."""
    return Path(shutil.copytree(miniatures, tmp_path_factory.mktemp("own") / "releases"))


def read_first(root: Path, bodies: Path, dataset: str, split: str) -> Iterator[Record | Defect]:
    data = DataParams(source="releases", root=root, body_model=bodies)
    release = open_release(dataset, data, {dataset: SETTINGS[dataset]}, 92)
    release.inventory()
    for unit in release.units(split)[:FIRST_UNITS]:
        yield from islice(release.read(unit, split), FIRST_ROWS)


def crashes_of(root: Path, bodies: Path, target: tuple[str, str, str], seeds: range) -> list[str]:
    dataset, split, pattern = target

    def read() -> None:
        for row in read_first(root, bodies, dataset, split):
            if isinstance(row, Record):
                row.to_members()

    return crashes(sorted(root.glob(pattern))[0], read, seeds)


def test_the_targets_are_all_there_and_read_well_before_they_are_damaged(own: Path, bodies: Path) -> None:
    assert set(TARGETS) == set(RELEASES)
    for dataset, split, pattern in ALL:
        assert list(own.glob(pattern)), pattern
        rows = list(read_first(own, bodies, dataset, split))
        assert rows and all(isinstance(row, Record) for row in rows), (pattern, rows)


@pytest.mark.parametrize("target", ALL, ids=lambda target: target[2])
def test_a_few_kinds_of_damage_crash_no_reader(own: Path, bodies: Path, target: tuple[str, str, str]) -> None:
    assert not crashes_of(own, bodies, target, range(4))


@pytest.mark.slow
@pytest.mark.parametrize("target", ALL, ids=lambda target: target[2])
def test_no_damage_crashes_a_reader(own: Path, bodies: Path, target: tuple[str, str, str]) -> None:
    found = crashes_of(own, bodies, target, range(FIRST_SEED, FIRST_SEED + CASES))
    assert not found, f"{len(found)} of {CASES} cases crashed; the first: {found[0]}"
