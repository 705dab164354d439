"""The flow runs on a small DVC project with the pipeline's stage names, against Prefect's own test server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.dvc_graph import plain
from tests.support import toy
from tests.support.lab import patience, until

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def project(tmp_path):
    return toy.make(tmp_path / "toy")


def outcomes(root, **options):
    from flows.pipeline import pipeline

    return {plain(run.name): run.outcome for run in pipeline(root, **options)}


def artifacts():
    """The newest artifact of each key."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/latest/filter", json={}).json()
    return {artifact["key"]: artifact for artifact in found}


def test_the_pipeline_runs_everything_once_and_then_only_what_changed(prefect_server, project):
    first = outcomes(project)
    assert set(first) == toy.NAMES
    assert set(first.values()) == {"Completed"}
    toy.commit(project, "first numbers")
    began = time.monotonic()
    again = outcomes(project)
    assert time.monotonic() - began < 5 * patience()
    assert again.pop("inventory") == "Completed"  # always looks
    assert set(again.values()) == {"Cached"}
    toy.set_params(project, toy.PARAMS.replace("0.5", "0.25"))
    changed = outcomes(project)
    assert [name for name, outcome in changed.items() if outcome == "Completed"] == ["inventory", "rft", "report"]
    found = artifacts()
    rows = found["stages-pipeline"]["data"]
    assert '"stage": "rft", "state": "Completed"' in rows and '"stage": "sft", "state": "Cached"' in rows
    assert "| rft.beta | 0.5 | 0.25 | -0.25 |" in found["changes"]["data"]
    assert "| pose_error.3dpw.rft.mpjpe | 50 | 25 | -25 | better |" in found["changes"]["data"]
    assert found["progress-sft"]["data"] == 100.0
    toy.set_params(project, toy.PARAMS)
    back = outcomes(project)
    assert back["rft"] == "Restored"


def test_a_failing_stage_fails_the_flow_in_its_own_words_and_stops_what_waits_for_it(prefect_server, project):
    from flows.graph_run import StagesFailed

    text = (project / "dvc.yaml").read_text().replace("python train.py sft", "echo the data is bad >&2 && exit 4 #")
    (project / "dvc.yaml").write_text(text)
    with pytest.raises(StagesFailed, match=r"Stage sft failed: the data is bad\n2 stage"):
        outcomes(project)
    assert not (project / "rft.txt").exists()
    rows = artifacts()["stages-pipeline"]["data"]
    assert '"stage": "sft", "state": "Failed"' in rows and '"stage": "rft", "state": "Not run"' in rows


@pytest.mark.slow
def test_a_stage_over_its_hours_fails_and_ends(prefect_server, project):
    from flows.graph_run import StagesFailed

    toy.set_params(project, toy.PARAMS.replace("steps: 3", "steps: 600"))
    with pytest.raises(StagesFailed, match=r"after its limit of 3\.6 s"):
        outcomes(project, hours={"sft": 0.001})
    assert toy.orphans(project) == []


@pytest.mark.slow
def test_one_gpu_slot_means_one_training_at_a_time(prefect_server, tmp_path, monkeypatch):
    monkeypatch.setenv("POSE_RFT_GPU_SLOTS", "1")
    (tmp_path / "toy").mkdir()
    stages = """
    stages:
      sft:
        foreach: [a, b]
        do: {cmd: "echo ${item} in >> order && sleep 2 && echo ${item} out >> order && echo > ${item}.txt",
             deps: [seed.txt], outs: ["${item}.txt"]}
    """
    root = toy.make(tmp_path / "toy", stages)
    outcomes(root)
    (one, done, two, end) = (line.split() for line in (root / "order").read_text().splitlines())
    assert one[0] == done[0] and two[0] == end[0] and one[0] != two[0]


def test_stages_run_side_by_side_with_a_core_each_and_one_that_waits_takes_no_place(
    prefect_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("POSE_RFT_GPU_SLOTS", "0")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # shares of its own, whatever else this machine runs
    stages = """
    stages:
      a_waits: {cmd: sh say.sh a 0, deps: [z], outs: [a]}
      b: {cmd: sh say.sh b 2, deps: [seed.txt], outs: [b]}
      z: {cmd: sh say.sh z 5, deps: [seed.txt], outs: [z]}
    """
    root = toy.make(tmp_path / "toy", stages)
    (root / "say.sh").write_text(
        "echo $1 in $(taskset -cp $$ | sed 's/.*: //') >> order; sleep $2; echo $1 out >> order; touch $1\n"
    )
    outcomes(root)
    lines = [line.split() for line in (root / "order").read_text().splitlines()]
    assert {line[0] for line in lines[:2]} == {"b", "z"} and {line[1] for line in lines[:2]} == {"in"}
    cores = {name: said[0] for name, what, *said in lines if what == "in"}
    if len(os.sched_getaffinity(0)) > 1:
        assert len({cores["b"], cores["z"]}) == 2
        assert cores["a"] not in (cores["b"], cores["z"])


@pytest.mark.slow
def test_an_agent_with_a_cache_of_its_own_gets_inputs_and_gives_results_through_the_remote(
    prefect_server, project, tmp_path
):
    from flows.agent import stage
    from flows.dispatch import send_inputs
    from flows.dvc_graph import restorable
    from flows.dvc_stage import run_stage

    toy.run(project, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    toy.run(project, "dvc", "repro", "convert@a", "convert@b")
    toy.commit(project, "inputs")
    send_inputs(project, "sft")
    agent = tmp_path / "agent"
    toy.run(tmp_path, "git", "clone", "-q", str(project), str(agent))
    what = {name: (project / file).read_text() for name, file in (("params", "params.yaml"), ("lock", "dvc.lock"))}
    assert not restorable(project, "sft")
    assert stage(name="sft", root=agent, return_state=True, **what).name == "Completed"
    assert (agent / "sft.txt").read_text() == "sft 3 1\n"
    assert restorable(project, "sft")
    told = []
    assert run_stage("sft", project, told.append).outcome == "Restored"
    assert (project / "sft.txt").read_text() == "sft 3 1\n" and not any("begins at step" in line for line in told)


@pytest.mark.slow
def test_a_sweep_is_one_run_per_override_and_one_table(prefect_server, project):
    import json

    from flows.graph_run import StagesFailed
    from flows.sweep import sweep

    outcomes(project)
    rows = sweep([{"rft.beta": 0.1}, {"rft.beta": 0.2}], root=project)
    assert [row["pose_error.3dpw.rft.mpjpe"] for row in rows] == [10.0, 20.0]
    table = json.loads(artifacts()["stages-sweep-comparison"]["data"])
    assert {"": "pose_error.3dpw.rft.mpjpe", "rft.beta=0.1": 10.0, "rft.beta=0.2": 20.0} in table
    trained = [p for p in (project / ".scratch/sweep").iterdir() if (p / ".scratch/flow_logs/sft.log").is_file()]
    assert all("begins at step" not in (p / ".scratch/flow_logs/sft.log").read_text() for p in trained)
    with pytest.raises(StagesFailed, match=r"1 of 2 runs failed: rft.beta=many"):
        sweep([{"rft.beta": "many"}, {"rft.beta": 0.3}], root=project)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_flow_with_its_training_and_its_private_server(tmp_path, number):
    root = toy.make(tmp_path / "toy")
    toy.set_params(root, toy.PARAMS.replace("steps: 3", "steps: 3000"))
    log = tmp_path / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "flows.pipeline"]
    with log.open("w") as out:
        flow = subprocess.Popen(
            command, cwd=root, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until(lambda: "sft: " in log.read_text() or flow.poll() is not None, 120)
        assert toy.orphans(root), log.read_text()
        os.killpg(flow.pid, number)  # as a terminal does: to everything that it started
        until(lambda: flow.poll() is not None, 20)
    finally:
        flow.kill()
    until(lambda: not toy.orphans(root), 5)
    assert "Finished in state Crashed" in log.read_text()
    home = f"XDG_CACHE_HOME={tmp_path / 'home'}".encode()
    until(lambda: not any(home in environ(process) for process in Path("/proc").glob("[0-9]*")), 5)


def environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
