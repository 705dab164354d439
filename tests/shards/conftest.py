from pathlib import Path

import pytest

from pose_rft.shards.convert import convert
from pose_rft.shards.plan import ShardParams
from tests.support.fake_release import FakeRelease


@pytest.fixture(scope="session")
def converted(tmp_path_factory) -> Path:
    """60 samples in three shards, with 5 defects. Read only; copy before damaging."""
    folder = tmp_path_factory.mktemp("converted")
    shards = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)
    release = FakeRelease(bad={"u02": "defects"})
    return convert(release, "train", folder / "out", shards, 0.2, "digest", folder / "scratch").folder


@pytest.fixture
def shards(converted, tmp_path) -> Path:
    """A copy to damage."""
    import shutil

    return Path(shutil.copytree(converted, tmp_path / "shards"))
