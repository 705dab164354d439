"""Damaged shards, indices, manifests and body models are problems in words, never crashes."""

import contextlib
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pose_rft.body.smpl import load_body_model
from pose_rft.datasets.names import RELEASES
from pose_rft.errors import PoseRftError
from pose_rft.io.archives import tar_members
from pose_rft.io.npz import read_npz
from pose_rft.record import Record
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.stats import stats
from pose_rft.shards.verify import verify
from pose_rft.validation.checks import report
from tests.support.damage import BYTES, damage

CASES = int(os.environ.get("FUZZ_CASES", "120"))


def crashes(path: Path, read: Callable[[], Any], seeds: range) -> list[str]:
    whole, found = path.read_bytes(), []
    try:
        for seed in seeds:
            how = damage(path, whole, np.random.default_rng(seed))
            try:
                with contextlib.suppress(PoseRftError):
                    read()
            except Exception:
                found.append(f"{path.name}, seed {seed} ({how}):\n{traceback.format_exc(limit=-3)}")
    finally:
        path.write_bytes(whole)
    return found


@pytest.fixture(scope="module")
def shards(miniatures: Path, bodies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature 3DPW as shards."""
    from pose_rft.datasets.registry import DataParams
    from pose_rft.shards.convert import convert_release
    from pose_rft.shards.plan import ShardParams

    assert "3dpw" in RELEASES
    plan = ShardParams(samples_per_shard=2, executor="serial", workers=1, jpeg_quality=92)
    out = tmp_path_factory.mktemp("shards") / "test"
    data = DataParams(source="releases", root=miniatures, body_model=bodies)
    return convert_release("3dpw", "test", out, data, {}, plan).folder


def look(folder: Path) -> None:
    """Everything that a person does with a folder of shards."""
    assert isinstance(verify(folder).problems, tuple)  # finds problems, raises nothing
    stats(folder)
    samples = ShardSet(folder)
    for row in range(min(len(samples), 3)):
        samples.record(row)


FILES = ("00000.tar", "00000.json", "manifest.json", "index.parquet", "defects.parquet")


@pytest.mark.parametrize("name", FILES)
def test_a_few_kinds_of_damage_to_shards_are_problems_in_words(shards: Path, tmp_path: Path, name: str) -> None:
    own = Path(shutil.copytree(shards, tmp_path / "shards"))
    look(own)
    assert not crashes(own / name, lambda: look(own), range(6))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_no_damage_to_shards_crashes(shards: Path, tmp_path: Path, name: str) -> None:
    own = Path(shutil.copytree(shards, tmp_path / "shards"))
    found = crashes(own / name, lambda: look(own), range(2000, 2000 + CASES))
    assert not found, f"{len(found)} of {CASES} cases crashed; the first: {found[0]}"


def test_members_of_a_sample_may_be_anything(shards: Path) -> None:
    """`Record.from_members` on damaged json and npz: a Record or one sentence."""
    members = ShardSet(shards).record(0).to_members()
    rng = np.random.default_rng(0)
    for case in range(300):
        name = ("json", "npz")[case % 2]
        kind = BYTES[int(rng.integers(len(BYTES)))]
        with contextlib.suppress(PoseRftError):
            Record.from_members({**members, name: kind(members[name], rng)})


def test_archives_may_be_anything(shards: Path, tmp_path: Path) -> None:
    shutil.copy(shards / "00000.tar", tmp_path / "a.tar")
    assert not crashes(tmp_path / "a.tar", lambda: list(tar_members(tmp_path / "a.tar")), range(100))
    np.savez_compressed(tmp_path / "a.npz", poses=np.arange(30.0).reshape(10, 3), name=np.array("x"))
    assert not crashes(tmp_path / "a.npz", lambda: read_npz(tmp_path / "a.npz"), range(100))


@pytest.mark.slow
def test_a_body_model_may_be_anything(bodies: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bodies, tmp_path / "bodies"))
    path = own / "smpl/SMPL_NEUTRAL.pkl"
    found = crashes(path, lambda: load_body_model(own, "neutral"), range(40))
    assert not found, found[0]


def test_reports_of_nothing_are_reports() -> None:
    assert "0 checks, 0 failed" in report([])
