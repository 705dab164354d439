import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
import webdataset as wds

from pose_rft.errors import PoseRftError
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.show import show
from pose_rft.shards.stats import stats
from tests.support.fake_release import fake_record


def test_every_sample_comes_back_in_order_as_it_was_read(converted):
    shards = ShardSet(converted)
    numbers = [(unit, number) for unit in range(6) for number in range(10) if unit != 2 or number % 2 == 0]
    assert len(shards) == len(numbers) == 55
    for row, (unit, number) in enumerate(numbers):
        assert shards.record(row) == fake_record("fake", "train", f"u{unit:02d}", number)
        assert shards.row(f"u{unit:02d}_{number:06d}") == row


def test_webdataset_reads_the_shards_as_they_are(converted):
    samples = list(wds.WebDataset(str(converted / "{00000..00002}.tar"), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == ShardSet(converted).rows["key"].to_list()
    assert samples[0]["png"].shape == (6, 8, 3)
    assert samples[0]["json"]["key"] == "u00_000000"
    assert samples[0]["npz"]["smpl.betas"].shape == (10,)


def test_the_index_says_what_samples_hold(converted):
    rows = ShardSet(converted).rows
    assert rows["has_image"].all() and rows["has_smpl"].all() and not rows["has_dialogue"].any()
    assert rows["smpl_source"].unique().to_list() == ["fake"]
    assert rows.filter(pl.col("captions_human") > 0).height == 25
    members = rows["members"][0]
    assert [member["name"] for member in members] == ["json", "npz", "png"]


def test_a_shard_set_survives_pickling_and_threads(converted):
    shards = pickle.loads(pickle.dumps(ShardSet(converted)))
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda row: shards.record(row).key, range(len(shards))))
    assert keys == shards.rows["key"].to_list()


def test_the_fingerprint_follows_the_content(shards):
    first = ShardSet(shards).fingerprint
    (shards / "manifest.json").write_text((shards / "manifest.json").read_text() + "\n")
    assert ShardSet(shards).fingerprint != first


def test_reading_a_truncated_or_missing_shard_is_one_sentence(shards):
    shard_set = ShardSet(shards)
    os.truncate(shards / "00001.tar", 2_000)
    with pytest.raises(PoseRftError, match=r"00001.tar is truncated before sample u02"):
        shard_set.record(24)
    (shards / "00001.tar").unlink()
    with pytest.raises(PoseRftError, match=r"00001.tar cannot be read"):
        shard_set.record(24)
    shard_set.record(0)


def test_damage_inside_a_sample_is_one_sentence(shards):
    shard_set = ShardSet(shards)
    content = bytearray((shards / "00000.tar").read_bytes())
    start = shard_set.rows["start"][1]
    content[start : start + 4096] = os.urandom(4096)
    (shards / "00000.tar").write_bytes(content)
    with pytest.raises(PoseRftError, match=r"00000.tar, sample u00_000001: .* damaged"):
        shard_set.record(1)


def test_rows_and_keys_that_do_not_exist_are_refused(converted):
    shards = ShardSet(converted)
    with pytest.raises(IndexError):
        shards.record(len(shards))
    with pytest.raises(PoseRftError, match="has no sample 'nobody'"):
        shards.row("nobody")


def test_a_folder_without_conversion_is_one_sentence(tmp_path):
    with pytest.raises(PoseRftError, match="holds no finished conversion"):
        ShardSet(tmp_path)


def test_stats_are_a_table_of_numbers(converted):
    table = dict(stats(converted).iter_rows())
    assert table["samples"] == 55 and table["expected"] == 60 and table["defects.unreadable image"] == 5
    assert table["captions.human"] == 25 and table["box_side.min"] == 5.0 and table["joints2d_visible"] == 1.0


def test_show_draws_a_sample(converted, tmp_path):
    import PIL.Image

    record = show(converted, "u01_000003", tmp_path / "sample.png")
    assert record.key == "u01_000003"
    picture = PIL.Image.open(tmp_path / "sample.png")
    assert picture.width == 512 and picture.height > 384
    with pytest.raises(PoseRftError, match="has no sample 'nobody'"):
        show(converted, "nobody", tmp_path / "nobody.png")
