import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.record import Box, Caption
from pose_rft.shards import executors
from pose_rft.shards.convert import convert
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.plan import ShardParams
from pose_rft.shards.verify import verify
from tests.support.fake_release import FakeRelease, fake_record

SERIAL = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)


def run(
    tmp_path: Path, release: FakeRelease | None = None, shards: ShardParams = SERIAL, rate: float = 0.0, name="out"
):
    return convert(
        release or FakeRelease(), "train", tmp_path / name, shards, rate, "digest", tmp_path / f"{name}.scratch"
    )


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_conversion_makes_shards_markers_index_defects_and_manifest(tmp_path):
    summary = run(tmp_path)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    shards = [f"{n:05d}.{kind}" for n in range(3) for kind in ("json", "tar")]
    assert names == [*shards, "defects.parquet", "index.parquet", "manifest.json"]
    assert summary.metrics["samples"] == 60 and summary.metrics["defects"] == 0 and summary.metrics["shards"] == 3
    assert summary.metrics["captions"] == {"human": 30, "automatic": 30}
    assert summary.metrics["box_side"]["max"] == 8.0
    assert verify(tmp_path / "out").ok


@pytest.fixture
def workers_at_once(monkeypatch):
    """Workers start after the first shard, however little work is left."""
    monkeypatch.setattr(executors, "START_SECONDS", -1.0)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_worker_count_writes_the_same_bytes(tmp_path, workers, workers_at_once):
    release = FakeRelease(units_of=10, bad={"u02": "defects"})
    run(tmp_path, release, rate=0.2, name="one")
    many = ShardParams(samples_per_shard=20, executor="process", workers=workers, jpeg_quality=92)
    run(tmp_path, release, many, rate=0.2, name="many")
    assert content(tmp_path / "one") == content(tmp_path / "many")


def test_a_second_call_does_nothing_and_another_plan_starts_anew(tmp_path):
    run(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert run(tmp_path).reused == 3
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert run(tmp_path, shards=SERIAL.model_copy(update={"samples_per_shard": 30})).reused == 0
    assert len(ShardSet(tmp_path / "out").manifest.shards) == 2


def test_a_failed_conversion_keeps_its_complete_shards_and_continues(tmp_path):
    with pytest.raises(PoseRftError, match="u05 of the fake release is wrong"):
        run(tmp_path, FakeRelease(bad={"u05": "error"}))
    assert not (tmp_path / "out").exists()
    assert run(tmp_path).reused == 2
    run(tmp_path, name="undisturbed")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("damage", ["cut", "flip", "no marker", "no rows"])
def test_a_damaged_shard_in_scratch_is_made_again(tmp_path, damage):
    with pytest.raises(PoseRftError):
        run(tmp_path, FakeRelease(bad={"u05": "error"}))
    tar = tmp_path / "out.scratch/shards/00000.tar"
    if damage == "cut":
        os.truncate(tar, tar.stat().st_size // 2)
    elif damage == "flip":
        tar.write_bytes(tar.read_bytes()[:700] + b"x" + tar.read_bytes()[701:])
    elif damage == "no marker":
        tar.with_suffix(".json").unlink()
    else:
        (tar.parents[1] / "work" / "00000.rows.json").write_text("{")
    assert run(tmp_path).reused == 1
    run(tmp_path, name="undisturbed")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


SLOW = """
from pathlib import Path
from tests.support.fake_release import FakeRelease
from pose_rft.shards.convert import convert
from pose_rft.shards import executors
from pose_rft.shards.plan import ShardParams
if __name__ == "__main__":
    shards = ShardParams(samples_per_shard=20, executor={executor!r}, workers=2, jpeg_quality=92)
    executors.START_SECONDS = -1.0
    convert(FakeRelease(delay=0.02), "train", Path("out"), shards, 0.0, "digest", Path("out.scratch"))
"""


@pytest.mark.parametrize("executor", ["serial", pytest.param("process", marks=pytest.mark.slow)])
def test_kill_9_in_the_middle_then_again_gives_the_undisturbed_bytes(tmp_path, executor):
    (tmp_path / "slow.py").write_text(SLOW.format(executor=executor))
    paths = str(Path(__file__).parents[2])
    child = subprocess.Popen([sys.executable, "slow.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths})
    shards = tmp_path / "out.scratch/shards"
    deadline = time.monotonic() + 60
    while not list(shards.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out").exists()
    assert 1 <= len(list(shards.glob("0*.json"))) < 3
    time.sleep(0.5)  # workers notice that their parent died
    assert run(tmp_path).reused >= 1
    run(tmp_path, name="undisturbed")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_too_many_defects_fail_with_reasons_counts_and_the_table(tmp_path):
    with pytest.raises(PoseRftError, match=r"5 of 60 rows are defects \(5 × unreadable image\).*max_defect_rate") as e:
        run(tmp_path, FakeRelease(bad={"u02": "defects"}), rate=0.05)
    table = tmp_path / "out.scratch/shards/defects.parquet"
    assert str(table) in str(e.value) and len(pl.read_parquet(table)) == 5
    assert not (tmp_path / "out").exists()
    summary = run(tmp_path, FakeRelease(bad={"u02": "defects"}), rate=0.1)
    assert summary.reused == 3 and summary.manifest.defects == {"unreadable image": 5}


def test_no_sample_is_an_error(tmp_path):
    with pytest.raises(PoseRftError, match="gives no sample"):
        run(tmp_path, FakeRelease(units_of=0))


def test_a_key_in_two_shards_is_an_error_that_names_it(tmp_path):
    with pytest.raises(PoseRftError, match="sample key same_000000 comes 6 times"):
        run(tmp_path, FakeRelease(same_keys=True), SERIAL.model_copy(update={"samples_per_shard": 10}))


@pytest.mark.parametrize(
    ("kind", "executor", "sentence"),
    [
        ("error", "serial", "Unit u03 of the fake release is wrong; fix it"),
        pytest.param("error", "process", "Unit u03 of the fake release is wrong; fix it", marks=pytest.mark.slow),
        ("crash", "process", "worker processes died without a word"),
        ("unreadable", "serial", "/release/file cannot be read .Permission denied."),
    ],
)
def test_what_goes_wrong_in_a_worker_is_one_sentence(tmp_path, kind, executor, sentence, workers_at_once):
    workers = ShardParams(samples_per_shard=20, executor=executor, workers=2, jpeg_quality=92)
    with pytest.raises(PoseRftError, match=sentence):
        run(tmp_path, FakeRelease(bad={"u03": kind}), workers)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PoseRftError, match="No space left on device"):
        run(tmp_path)
    assert not list(tmp_path.rglob("*.tar*")) and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PoseRftError, match=r"cannot be written .*Not a directory"):
        convert(FakeRelease(), "train", tmp_path / "out", SERIAL, 0.0, "d", tmp_path / "file/scratch")


def test_a_scratch_on_another_file_system_ends_in_the_same_folder(tmp_path, monkeypatch):
    real = os.replace

    def replace(source, target):
        if Path(source).name == "shards":
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    run(tmp_path)
    monkeypatch.undo()
    run(tmp_path, name="undisturbed")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    assert not [path.name for path in tmp_path.iterdir() if "tmp" in path.name]


def test_records_come_back_as_they_were_read(tmp_path):
    run(tmp_path)
    shards = ShardSet(tmp_path / "out")
    for row in (0, 19, 20, 59):
        assert shards.record(row) == fake_record("fake", "train", f"u{row // 10:02d}", row % 10)


def test_manifest_says_where_the_shards_come_from(tmp_path):
    run(tmp_path)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["inventory"] == "digest" and manifest["licence"] == "none"
    assert sum(shard["count"] for shard in manifest["shards"]) == manifest["samples"] == manifest["expected"] == 60


@pytest.mark.parametrize("what", ["folder", "file", "link", "shards of others", "a manifest of others"])
def test_only_a_conversion_is_replaced_and_nothing_else_is_lost(tmp_path, what):  # S9
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    elif what == "link":
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to("elsewhere")
    else:
        out.mkdir()
        name = {"folder": "thesis.tex", "shards of others": "00000.tar"}.get(what, "manifest.json")
        (out / name).write_text("{}")
        (out / "notes").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(PoseRftError, match=r"out (is a link|is a file|holds something else).*shards will not replace"):
        run(tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert out.is_symlink() == (what == "link")


def test_an_empty_folder_and_an_older_conversion_are_replaced(tmp_path):  # S9
    (tmp_path / "out").mkdir()
    run(tmp_path)
    assert run(tmp_path, FakeRelease(units_of=2)).manifest.samples == 20


@pytest.mark.parametrize("damage", ["cut", "flip", "no shard", "no index", "manifest"])
def test_a_finished_split_that_was_damaged_is_not_taken_for_whole(tmp_path, damage):  # S10
    run(tmp_path)
    whole = content(tmp_path / "out")
    shard, manifest = tmp_path / "out/00001.tar", tmp_path / "out/manifest.json"
    if damage == "cut":
        os.truncate(shard, shard.stat().st_size // 2)
    elif damage == "flip":
        shard.write_bytes(shard.read_bytes()[:700] + b"x" + shard.read_bytes()[701:])
    elif damage == "no shard":
        shard.unlink()
    elif damage == "no index":
        (tmp_path / "out/index.parquet").unlink()
    else:
        manifest.write_text(manifest.read_text()[:100])
    assert run(tmp_path).reused == 0
    assert content(tmp_path / "out") == whole


class Odd(FakeRelease):
    """Whose unit `u01` has a caption, and `u02` a box, that no sample can have."""

    def read(self, unit, split):
        for row in super().read(unit, split):
            if unit.key == "u01" and row.frame == 3:
                row = replace(row, captions=(Caption("\ud83d", "human"),))
            if unit.key == "u02" and row.frame == 4:
                row = replace(row, box=Box((900.0, 3.0), 5.0, "test"))
            yield row


def test_a_record_that_cannot_be_a_sample_is_a_defect_and_the_conversion_goes_on(tmp_path):  # A7, B3
    summary = run(tmp_path, Odd(), rate=0.1)
    assert summary.manifest.samples == 58
    defects = pl.read_parquet(tmp_path / "out/defects.parquet").select("unit", "row", "reason").rows()
    assert defects == [("u01", "u01_000003", "broken text"), ("u02", "u02_000004", "box outside the picture")]
    assert verify(tmp_path / "out").ok


def test_rows_that_changed_in_scratch_are_made_again_and_the_release_is_not_blamed(tmp_path):  # S19
    run(tmp_path, name="whole")
    with pytest.raises(PoseRftError):
        run(tmp_path, FakeRelease(bad={"u05": "error"}))
    rows = min((tmp_path / "out.scratch/work").glob("*.rows.json"))
    rows.write_text(rows.read_text().replace("u00", "u99"))
    run(tmp_path)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
