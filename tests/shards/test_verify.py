import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pose_rft.record import Keypoints
from pose_rft.shards.index import index_row
from pose_rft.shards.verify import other_columns, verify
from tests.support.fake_release import fake_record


def only_problem(folder: Path) -> str:
    report = verify(folder)
    assert not report.ok and len(report.problems) == 1
    assert "convert again" in report.problems[0] or "delete it" in report.problems[0] or "repro" in report.problems[0]
    return report.problems[0]


def test_a_whole_folder_has_no_problem(converted):
    report = verify(converted)
    assert report.ok and report.shards == 3 and report.samples == 55


def test_a_truncated_shard_is_named(shards):
    os.truncate(shards / "00001.tar", 10_240)
    assert "00001.tar is truncated: 10240 bytes" in only_problem(shards)


def test_a_tar_cut_between_two_members_is_found_although_webdataset_reads_it(shards):
    with tarfile.open(shards / "00001.tar") as tar:
        cut = tar.getmembers()[6].offset
    os.truncate(shards / "00001.tar", cut)
    assert "00001.tar is truncated" in only_problem(shards)


def test_a_flipped_byte_is_found(shards):
    content = bytearray((shards / "00002.tar").read_bytes())
    content[5000] ^= 1
    (shards / "00002.tar").write_bytes(content)
    assert "00002.tar is damaged: its sha256" in only_problem(shards)


def test_a_missing_marker_shard_manifest_or_index_is_found(shards):
    for name, sentence in (
        ("00000.json", "00000.tar has no marker"),
        ("00000.tar", "has no marker"),
        ("defects.parquet", "does not exist"),
        ("index.parquet", "does not exist"),
        ("manifest.json", "holds no finished conversion"),
    ):
        (shards / name).unlink()
        assert sentence in only_problem(shards)


def test_a_missing_shard_is_found(shards):
    (shards / "00000.tar").unlink()
    assert "00000.tar does not exist" in only_problem(shards)


def test_a_shard_that_no_manifest_lists_is_found(shards):
    (shards / "00009.tar").write_bytes(b"")
    assert "00009.tar is not in the manifest" in only_problem(shards)


def test_a_sample_that_breaks_the_schema_is_found_even_when_all_sums_agree(shards):
    """Somebody edits a shard and fixes marker and manifest: the samples still have to be Records."""
    with tarfile.open(shards / "00000.tar") as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]
    with tarfile.open(shards / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in members:
            if member.name == "u00_000001.json":
                content = content.replace(b'"schema":1', b'"schema":9')
            tar.addfile(member, io.BytesIO(content))
    import hashlib

    digest = hashlib.sha256((shards / "00000.tar").read_bytes()).hexdigest()
    for name in ("00000.json", "manifest.json"):
        content = json.loads((shards / name).read_text())
        (content["shards"][0] if "shards" in content else content)["sha256"] = digest
        (shards / name).write_text(json.dumps(content))
    assert "sample u00_000001 does not follow the schema" in only_problem(shards)


def test_counts_that_disagree_are_found(shards):
    content = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps({**content, "samples": 54}))
    assert "has 55 rows, the manifest says 54" in only_problem(shards)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shards": [1]}'])
def test_a_manifest_that_is_none_is_one_sentence(shards, text):
    (shards / "manifest.json").write_text(text)
    assert "manifest.json cannot be read" in only_problem(shards)


@pytest.mark.parametrize(
    "column, value", [("subject", "S9"), ("has_smpl", False), ("split", "test"), ("box_side", 1.0)]
)
def test_an_index_that_says_something_else_than_the_samples_is_found(shards, column, value):
    """Which samples are trained on and tested on is asked of the index, not of the samples."""
    index = pl.read_parquet(shards / "index.parquet")
    kind = index.schema[column]
    index.with_columns(pl.lit(value, kind).alias(column)).write_parquet(shards / "index.parquet")
    problems = " ".join(verify(shards).problems)
    assert f"is not what index.parquet says of it ({column})" in problems


def test_statistics_that_are_not_those_of_the_index_are_found(shards):
    content = json.loads((shards / "manifest.json").read_text())
    content["statistics"]["with_image"] += 1
    (shards / "manifest.json").write_text(json.dumps(content))
    assert "does not give the statistics of the manifest" in only_problem(shards)


def test_keypoints_of_another_number_than_their_joint_set_are_found():
    record = fake_record("fake", "train", "u", 0)
    few = replace(record, joints2d=Keypoints(np.ones((5, 3)), "coco17"))
    unknown = replace(record, joints3d=Keypoints(np.ones((17, 4)), "nobodys"))
    for changed, wrong in ((record, []), (few, ["joints2d"]), (unknown, ["joints3d"])):
        places = {"json": (512, 10), "npz": (1536, 10), "png": (2560, 10)}
        row = index_row(changed, "u", 0, 0, places)
        assert other_columns(changed, row) == wrong
