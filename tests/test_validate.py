"""Each check fails on shards that were converted from data broken on purpose."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pose_rft.datasets.common.facts import Explanation, Published
from pose_rft.record import Camera, Record, Smpl
from pose_rft.shards.convert import convert
from pose_rft.shards.plan import ShardParams
from pose_rft.validation.checks import as_rows, failure, metrics, report, tables
from pose_rft.validation.run import validate
from tests.support.fake_release import FakeRelease

SHARDS = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)


@dataclass(frozen=True)
class Broken(FakeRelease):
    """`break_` names what is wrong with every record."""

    break_: str = ""
    units_of: int = 3

    def read(self, unit, split):
        for row in super().read(unit, split):
            yield self.spoil(row, split) if isinstance(row, Record) else row

    def spoil(self, record: Record, split: str) -> Record:
        record = replace(record, key=f"{split}_{record.key}")
        camera = record.camera
        match self.break_:
            case "reflected camera":
                return replace(record, camera=Camera(camera.K, np.diag([1.0, 1, -1]), camera.t))
            case "wrong intrinsics":
                return replace(record, camera=Camera(camera.K * [1.5, 1.5, 1], camera.R, camera.t))
            case "image size":
                return replace(record, image=replace(record.image, width=9))
            case "leaked subject":
                return replace(record, subject="S9")
            case "leaked key":
                return replace(record, key=record.key.removeprefix(f"{split}_"))
        return record


def checks(tmp_path: Path, tiny_folder: Path, break_: str, published=(), strict=True, dataset="h36m", **release):
    folders = {}
    for split in ("train", "p2"):
        made = Broken(dataset=dataset, break_=break_, **release)
        out = convert(made, split, tmp_path / split, SHARDS, 0.9, "digest", tmp_path / f".{split}").folder
        folders[split] = out
    return validate({dataset: folders}, {dataset: published}, tiny_folder, SHARDS, strict)


def failed(found) -> set[str]:
    return {check.name.split(" (")[0] for check in found if check.verdict == "failed"}


@pytest.mark.parametrize(
    ("break_", "name"),
    [
        ("reflected camera", "camera_error"),
        ("wrong intrinsics", "reprojection"),
        ("image size", "image size differs"),
        ("leaked subject", "shared subjects"),
        ("leaked key", "shared keys"),
    ],
)
def test_what_is_broken_on_purpose_fails_its_check(tmp_path, tiny_folder, break_, name):
    sound = failed(checks(tmp_path / "sound", tiny_folder, ""))
    assert name not in sound
    assert name in failed(checks(tmp_path / "broken", tiny_folder, break_))


@pytest.mark.parametrize(
    ("what", "careless", "remark"),
    [
        (
            "smpl",
            (Smpl, "__post_init__", lambda self: None),
            "global_orient from fake holds a number that is not finite",
        ),
        ("camera", (Camera, "problem", None), "a camera with a number that is not finite"),
    ],
)
def test_a_body_or_camera_with_a_nan_cannot_even_be_read(tmp_path, tiny_folder, monkeypatch, what, careless, remark):
    def spoil(self, record, split):
        spoilt = nan_body(record.smpl) if what == "smpl" else replace(record.camera, R=np.full((3, 3), np.nan))
        return replace(record, **{what: spoilt})

    with monkeypatch.context() as patch:
        patch.setattr(*careless)  # a converter that does not look
        release = type("Spoilt", (Broken,), {"spoil": spoil})(dataset="h36m")
        made = convert(release, "train", tmp_path / "train", SHARDS, 0.9, "digest", tmp_path / "s").folder
    found = validate({"h36m": {"train": made}}, {}, tiny_folder, SHARDS, True)
    assert "damaged" in failed(found)
    assert remark in next(c.remark for c in found)


def test_shards_in_the_place_of_others_fail(tmp_path, tiny_folder):
    """A folder that was copied: nothing in it is damaged, and the test set is a training set."""
    made = convert(FakeRelease(dataset="h36m"), "train", tmp_path / "p2", SHARDS, 0.9, "digest", tmp_path / "s").folder
    found = validate({"h36m": {"p2": made}}, {}, tiny_folder, SHARDS, True)
    assert "damaged" in failed(found) and "holds h36m train, expected h36m p2" in found[0].remark


def nan_body(smpl):
    return replace(smpl, global_orient=np.full(3, np.nan, np.float32))


def test_unexplained_differences_from_published_counts_fail_if_strict_and_are_noted_otherwise(tmp_path, tiny_folder):
    counts = [Published("train", "samples", 40), Published("test", "samples", 7)]
    found = checks(tmp_path / "a", tiny_folder, "", counts)
    (check,) = [check for check in found if check.name == "published samples"]  # no split `test` was converted
    assert (check.value, check.expected, check.verdict) == (30, "40", "failed")
    assert check.remark == "10 missing without explanation"
    found = checks(tmp_path / "b", tiny_folder, "", counts, strict=False)
    assert "published samples" not in failed(found) and "10 missing without" in report(found)


def test_explained_differences_are_listed_and_pass(tmp_path, tiny_folder):
    counts = [Published("all", "samples", 70, (Explanation("a video that was never released", fewer=8),))]
    found = checks(tmp_path, tiny_folder, "", counts, bad={"u01": "defects"})  # 5 defects in each split
    (check,) = [check for check in found if check.name == "published samples"]
    assert check.verdict == "failed" and "10 are defects; 8 fewer: a video" in check.remark
    assert "2 missing without explanation" in check.remark
    again = replace(counts[0], count=68)
    found = validate({"h36m": {s: tmp_path / s for s in ("train", "p2")}}, {"h36m": [again]}, tiny_folder, SHARDS, True)
    (check,) = [check for check in found if check.name == "published samples"]
    assert check.verdict == "note" and check.remark == "10 are defects; 8 fewer: a video that was never released"


def test_the_numbers_the_page_and_the_tables_tell_the_same(tmp_path, tiny_folder):
    found = checks(tmp_path, tiny_folder, "image size")
    numbers = metrics(found)["validate"]
    assert numbers["failed"] == len([check for check in found if check.verdict == "failed"]) > 0
    assert numbers["h36m"]["train"]["samples"] == 30 and numbers["h36m"]["train"]["image_size_differs"] == 30
    (table,) = tables(as_rows(found))
    assert table["title"] == "h36m" and len(table["rows"]) == len(found)
    assert "## h36m" in report(found) and "| train | image size differs | 30 | 0 | failed |" in report(found)
    assert "checks of the shards failed; the first is h36m" in failure(found, Path("report.md"))
