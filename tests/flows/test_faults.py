"""What goes wrong in a lab, done for real: a server, agents and DVC on a small project, and `kill -9`.

After each fault: no process is left, the next trigger finishes with what an undisturbed run makes, and the server says
what happened. Seconds of recovery are printed (`pytest -s`) for docs/operations.md.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import toy
from tests.support.lab import FINAL, STEPS, Lab, children, free_port, patience, said, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(toy.make(tmp_path_factory.mktemp("lab") / "toy"), free_port())
    (lab.root / ".scratch").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(lab.root / ".scratch")]
    has_disk = os.getuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    began = time.monotonic()
    text = lab.up()
    said("up", time.monotonic() - began)
    assert f"http://127.0.0.1:{lab.port}" in text
    try:
        yield lab
        lab.up("down")
        assert lab.processes("prefect") == []
    finally:
        if has_disk:
            subprocess.run(["umount", "--lazy", str(lab.root / ".scratch")], check=True)


def test_up_again_changes_nothing_and_status_says_what_runs(lab):
    before = lab.pid("server"), lab.pid("cpu agent"), lab.pid("gpu agent")
    lab.up()
    assert (lab.pid("server"), lab.pid("cpu agent"), lab.pid("gpu agent")) == before
    assert lab.up("status").count("runs") == 2
    assert len(lab.post("/automations/filter")) == 1


def test_a_flow_of_the_local_deployment_completes_and_a_second_costs_little(lab):
    lab.choose(10)
    assert lab.wait(lab.trigger())["name"] == "Completed"
    run = lab.trigger()
    assert lab.wait(run)["name"] == "Completed"
    seconds = lab.get(f"/flow_runs/{run}")["total_run_time"]
    said("no-op flow", seconds)
    assert seconds < 5 * patience()


def test_a_killed_stage_is_tried_again_and_resumes(lab):
    run = lab.begin(11)
    for pid in lab.training():
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    assert lab.wait(run)["name"] == "Completed"
    said("kill -9 stage: completed by itself after", time.monotonic() - began)
    assert "begins at step 0" not in (lab.root / ".scratch/flow_logs/sft.log").read_text()
    lab.finishes(11)


def test_a_killed_engine_is_a_crash_and_takes_its_training_along(lab):
    run = lab.begin(12)
    for pid in lab.processes("prefect.engine") + lab.processes("flow-run execute"):
        os.kill(pid, signal.SIGKILL)
    said("kill -9 engine: training ended after", until(lambda: not lab.training(), 10))
    said("kill -9 engine: crashed after", until(lambda: lab.state(run)["type"] in FINAL, 60))
    assert lab.state(run)["type"] == "CRASHED"
    lab.finishes(12)


def test_a_killed_worker_is_started_by_the_next_up(lab):
    run = lab.begin(13)
    os.kill(lab.pid("cpu agent"), signal.SIGKILL)
    said("kill -9 worker: run ended after", until(lambda: lab.state(run)["type"] in FINAL, 120))
    lab.up()
    lab.finishes(13)


def test_a_killed_server_comes_back_and_the_run_goes_on(lab):
    run = lab.begin(14)
    os.killpg(lab.pid("server"), signal.SIGKILL)
    time.sleep(1)
    began = time.monotonic()
    lab.up()
    said("kill -9 server: up again after", time.monotonic() - began)
    state = lab.wait(run)
    assert state["type"] in ("COMPLETED", "CRASHED"), state
    lab.finishes(14)


def test_a_click_on_cancel_ends_the_training(lab):
    run = lab.begin(15)
    lab.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}, "force": False})
    seconds = until(lambda: not lab.training() and not lab.processes("helper-of-"), 30)
    said("cancel: training ended after", seconds)
    assert seconds < 15 * patience()
    assert lab.wait(run)["type"] == "CANCELLED"
    lab.finishes(15)


def test_two_flows_at_once_train_once(lab):
    lab.choose(16)
    runs = [lab.trigger(), lab.trigger()]
    assert [lab.wait(run)["name"] for run in runs] == ["Completed", "Completed"]
    assert (lab.root / "sft.txt").read_text() == f"sft {STEPS} 16\n"
    lab.finishes(16)


def test_the_same_stage_triggered_twice_trains_once(lab):
    lab.choose(21)
    toy.run(lab.root, "dvc", "repro", "convert@a", "convert@b")
    toy.commit(lab.root, "for agents")
    what = {name: (lab.root / file).read_text() for name, file in (("params", "params.yaml"), ("lock", "dvc.lock"))}
    runs = [lab.trigger("stage/gpu", name="sft", **what) for _ in range(2)]
    # Both may start a process at one moment; a helper is only made behind the lock, by the one that trains.
    helpers: set[int] = set()

    def ended() -> bool:
        helpers.update(lab.processes("helper-of-"))
        return all(lab.state(run)["type"] in FINAL for run in runs)

    until(ended, 120)
    assert len(helpers) == 1
    assert sorted(lab.wait(run)["name"] for run in runs) == ["Completed", "Restored"]
    lab.finishes(21)


def test_a_full_disk_fails_the_stage_in_its_own_words_and_loses_nothing(lab):
    disk = lab.root / ".scratch"
    if not disk.is_mount():
        pytest.skip("needs root: the test mounts a small disk and fills it, so that no other disk runs full")
    run = lab.begin(22)
    until((disk / f"sft-{STEPS}-22/latest").exists, 30)  # something to lose
    fill(disk / "ballast")
    state = lab.wait(run)
    assert state["type"] == "FAILED" and "No space left on device" in state["message"], state
    (disk / "ballast").unlink()
    lab.finishes(22)
    assert "begins at step 0" not in (disk / "flow_logs/sft.log").read_text()


def fill(ballast: Path) -> None:
    """Takes all room that is left on the disk."""
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


def test_params_with_an_error_fail_the_run_in_one_sentence(lab):
    toy.set_params(lab.root, "sft: [1,\n")
    state = lab.wait(lab.trigger())
    assert state["type"] == "FAILED" and "DVC cannot read the pipeline" in state["message"]
    lab.choose(17)
    lab.finishes(17)


def test_a_gpu_stage_goes_to_an_agent_and_a_restarted_parent_finds_it(lab):
    lab.choose(18)
    toy.commit(lab.root, "for agents")
    first = lab.trigger("pipeline/cluster")
    until(lambda: lab.training(), 90)
    lab.post(f"/flow_runs/{first}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    for pid in lab.processes("prefect.engine"):
        if "/stage" not in Path(f"/proc/{pid}/environ").read_text(errors="replace") and not children(pid, "train.py"):
            os.kill(pid, signal.SIGKILL)
    second = lab.trigger("pipeline/cluster")
    assert lab.wait(second, 240)["name"] == "Completed"
    sent = [run["name"] for run in lab.post("/flow_runs/filter", {"flows": {"name": {"any_": ["stage"]}}})]
    assert sum(name.startswith("sft ") for name in sent) == 1
    lab.finishes(18)  # restored from the shared cache


def test_a_lost_machine_is_a_crash_after_three_heartbeats(lab):
    run = lab.begin(19)
    os.killpg(lab.pid("cpu agent"), signal.SIGKILL)
    for pid in lab.processes("flow-run execute") + lab.processes("prefect.engine"):
        os.kill(pid, signal.SIGKILL)
    said("kill -9 worker and engine: training ended after", until(lambda: not lab.training(), 10))
    said("kill -9 worker and engine: crashed after", until(lambda: lab.state(run)["type"] in FINAL, 200))
    assert lab.state(run)["type"] == "CRASHED"
    lab.up()
    lab.finishes(19)
