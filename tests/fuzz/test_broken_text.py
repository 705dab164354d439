"""B3: half of a UTF-16 pair in any JSON of a release costs the samples that it is about, never the conversion."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pose_rft.datasets.common.base import rows_of
from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.record import Defect, Record
from pose_rft.shards.writer import write_shard
from tests.fuzz.test_fuzz_readers import SETTINGS

LONE = "\ud83d"


def caption(content: Any) -> None:
    number = min(content, key=int)
    content[number] = [f"A person {LONE} stands."]


def turn(content: Any) -> None:
    content[0]["conversations"][1]["value"] += LONE


def file_name(content: Any) -> None:
    content["images"][0]["file_name"] = f"{LONE}.jpg"


def image_of_a_fit(content: Any) -> None:
    content["data"][0]["imageName"] = f"{LONE}.jpg"


CASES: dict[str, tuple[str, str, Callable[[Any], None], bool]] = {
    "caption": ("posescript", "posescript/**/posescript_human_*.json", caption, True),
    "dialogue turn": ("llava_instruct", "llava_instruct/llava_instruct_150k.json", turn, True),
    "file_name": ("coco", "coco/annotations/person_keypoints_train2017.json", file_name, True),
    "picture of a fit": ("coco", "coco/eft/COCO2014-All-ver01.json", image_of_a_fit, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_lone_surrogate_costs_its_own_samples_only(miniatures: Path, bodies: Path, tmp_path: Path, case: str) -> None:
    dataset, pattern, spoil, costs = CASES[case]
    root = Path(shutil.copytree(miniatures, tmp_path / "releases"))
    path = min(root.glob(pattern))
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    data = DataParams(source="releases", root=root, body_model=bodies)
    release = open_release(dataset, data, {dataset: SETTINGS[dataset]}, 92)
    release.inventory()
    rows = [
        (unit.key, row)
        for split in release.params.splits
        for unit in release.units(split)
        for row in rows_of(release, unit, split)
    ]
    good = [row for _, row in rows if isinstance(row, Record)]
    bad = [row for _, row in rows if isinstance(row, Defect)]
    assert len(good) > 0 and bool(bad) == costs
    assert {defect.reason for defect in bad} <= {"broken text", "unsafe name"}
    (tmp_path / "work").mkdir()
    assert write_shard(tmp_path, tmp_path / "work", 0, rows).count == len(good)
