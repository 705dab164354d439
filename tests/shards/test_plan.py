import pytest

from pose_rft.datasets.common.base import Unit
from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from pose_rft.shards.plan import ShardParams, plan_digest, plan_shards

UNITS = [Unit(f"u{number:03d}", 1 + number % 7, ()) for number in range(50)]


def test_every_unit_is_in_one_shard_in_order():
    shards = plan_shards(UNITS, 16)
    assert [unit for shard in shards for unit in shard.units] == UNITS
    assert [shard.index for shard in shards] == list(range(len(shards)))


def test_shards_hold_at_least_what_they_should_and_no_more_than_one_unit_over():
    for shard in plan_shards(UNITS, 16)[:-1]:
        assert 16 <= shard.expected < 16 + 7


def test_a_long_unit_is_not_cut():
    shards = plan_shards([Unit("a", 1000, ()), Unit("b", 1, ())], 10)
    assert [shard.expected for shard in shards] == [1000, 1]


def test_no_units_make_no_shards():
    assert plan_shards([], 10) == ()


@pytest.mark.parametrize("keys", ["ba", "aa"])
def test_unsorted_or_double_units_are_refused(keys):
    with pytest.raises(ValueError, match="sorted by key"):
        plan_shards([Unit(key, 1, ()) for key in keys], 10)


def test_the_digest_follows_units_sizes_and_identity():
    digests = {
        plan_digest(plan_shards(UNITS, 16), quality=90),
        plan_digest(plan_shards(UNITS, 40), quality=90),
        plan_digest(plan_shards(UNITS[1:], 16), quality=90),
        plan_digest(plan_shards(UNITS, 16), quality=91),
    }
    assert len(digests) == 4
    assert plan_digest(plan_shards(UNITS, 16), quality=90) in digests


@pytest.mark.parametrize(
    "change", [{"samples_per_shard": 0}, {"executor": "cloud"}, {"workers": -1}, {"jpeg_quality": 101}, {"worker": 2}]
)
def test_shard_params_out_of_range_are_refused(change):
    good = {"samples_per_shard": 512, "executor": "process", "workers": 2, "jpeg_quality": 92}
    parse(good, ShardParams, "`shards`")
    with pytest.raises(PoseRftError, match=next(iter(change))):
        parse(good | change, ShardParams, "`shards`")
