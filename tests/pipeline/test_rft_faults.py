"""The sample's own reinforcement fine-tuning under a real server and agents: killed, cancelled, and still the same.

Faults of every other kind are in tests/flows/test_faults.py, on a smaller project.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.pipeline.test_kill_and_resume import digest
from tests.support.lab import Lab, free_port, said, until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CHOICES = {"rft.steps": 60, "rft.save_every": 5}
MODEL = "models/rft_hygrpo"


@pytest.fixture(scope="module")
def one_thread():
    """A flow gives a stage one core or all of them, and another number of threads rounds otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def undisturbed(one_thread, finished, tmp_path_factory) -> tuple[dict[str, str], str]:
    """The files of the model, and where below `.scratch/rft` its training works."""
    project = finished.copy(tmp_path_factory.mktemp("undisturbed") / "project")
    project.set_params(**CHOICES)
    before = set(project.root.glob(".scratch/rft/*"))
    project.repro("rft@hygrpo")
    (own,) = set(project.root.glob(".scratch/rft/*")) - before
    return digest(project.root / MODEL), own.name


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    project = finished.copy(tmp_path_factory.mktemp("disturbed") / "project")
    shutil.copy(ROOT / "prefect.yaml", project.root)
    project.set_params(**CHOICES)
    return project


@pytest.fixture(scope="module")
def lab(one_thread, project):
    lab = Lab(project.root, free_port())
    lab.up()
    yield lab
    lab.up("down")


def training(lab: Lab) -> list[int]:
    return lab.processes("stages.rft --variant hygrpo")


def test_cancelled_and_then_killed_it_makes_the_model_of_an_undisturbed_run(lab, project, undisturbed):
    model, key = undisturbed
    newest = project.root / ".scratch/rft" / key / "checkpoints/latest"

    run = lab.trigger(hours={"rft": 1})
    until(newest.exists, 180)
    lab.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}, "force": False})
    said("cancel: the sample's rft ended after", until(lambda: not training(lab), 30))
    assert lab.wait(run)["type"] == "CANCELLED"
    assert not (project.root / MODEL).exists(), "a cancelled stage left something half-written"

    kept = newest.read_text()
    run = lab.trigger()
    until(lambda: newest.read_text() != kept, 180)
    for pid in training(lab):
        os.kill(pid, signal.SIGKILL)
    state = lab.wait(run, 400)
    assert state["name"] == "Completed", state
    assert digest(project.root / MODEL) == model
    assert training(lab) == []
