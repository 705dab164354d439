import hashlib
import sys
from pathlib import Path

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.shards import executors
from pose_rft.shards.convert import convert
from pose_rft.shards.plan import ShardParams
from tests.support.fake_release import FakeRelease


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler with two workers, as a user would start one."""
    from distributed import LocalCluster

    folder = tmp_path_factory.mktemp("dask")
    options = {"memory_limit": None, "dashboard_address": None, "local_directory": folder, "silence_logs": 50}
    with LocalCluster(n_workers=2, threads_per_worker=1, **options) as own:
        yield own.scheduler_address


def content(
    tmp_path: Path, executor: str, workers: int, bad: dict[str, str] | None = None, cluster: str | None = None
) -> dict[str, str]:
    shards = ShardParams(
        samples_per_shard=20,
        executor=executor,
        workers=workers,
        jpeg_quality=92,
        cluster=cluster,  # type: ignore[arg-type]
    )
    out = tmp_path / f"{executor}{workers}"
    release = FakeRelease(units_of=10, bad=bad or {"u02": "defects"})
    convert(release, "train", out, shards, 0.2, "digest", tmp_path / f"scratch-{executor}{workers}")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "workers"), [("process", 2), ("process", 4), ("dask", 2)])
def test_every_executor_and_number_of_workers_writes_the_same_bytes(tmp_path, monkeypatch, executor, workers) -> None:
    monkeypatch.setattr(executors, "START_SECONDS", -1.0)
    assert content(tmp_path, executor, workers) == content(tmp_path, "serial", 1)


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(tmp_path, cluster) -> None:
    assert content(tmp_path, "dask", 2, cluster=cluster) == content(tmp_path, "serial", 1)


def test_dask_without_an_address_starts_no_scheduler_that_anybody_could_reach(monkeypatch) -> None:  # S15
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert sorted(executors.map_jobs(abs, [-1, -2, -3], "dask", 1)) == [1, 2, 3]


@pytest.mark.slow
def test_what_goes_wrong_on_a_cluster_is_one_sentence_and_complete_shards_stay(tmp_path, cluster) -> None:
    with pytest.raises(PoseRftError, match="Unit u07 of the fake release is wrong; fix it"):
        content(tmp_path, "dask", 2, {"u07": "error"}, cluster)
    assert len(list((tmp_path / "scratch-dask2/shards").glob("*.tar"))) >= 3
    with pytest.raises(PoseRftError, match="worker processes died without a word"):
        content(tmp_path, "dask", 2, {"u07": "crash"}, cluster)


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_one_sentence(monkeypatch) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(PoseRftError, match=r"No Dask scheduler answers at `shards.cluster` = tcp://127.0.0.1:9"),
    ):
        list(executors.map_jobs(abs, [1], "dask", 1, "tcp://127.0.0.1:9"))


def test_without_dask_the_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PoseRftError, match=r"pip install 'pose-rft\[cluster\]'.*`process`"):
        list(executors.map_jobs(abs, [1], "dask", 1, "tcp://127.0.0.1:9"))


def test_serial_keeps_the_order_of_the_jobs() -> None:
    assert list(executors.map_jobs(abs, [-3, -1, -2], "serial", 1)) == [3, 1, 2]
