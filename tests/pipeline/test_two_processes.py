"""The stages `sft` and `rft` in two processes: by torchrun, by `launch`, and carried on by one after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.conftest import Project
from tests.support import two_ranks

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


def log(project: Project, run: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (project.root / f"results/{run}/log.jsonl").read_text().splitlines()]


def forget(project: Project, run: str) -> None:
    """Removes what the stage of a run has made, so that it starts anew."""
    for folder in (f"models/{run}", f"results/{run}", f".scratch/{run[:3]}"):
        shutil.rmtree(project.root / folder)


def assert_same(one: list[dict[str, float]], two: list[dict[str, float]], names: tuple[str, ...]) -> None:
    assert len(one) == len(two)
    for name in names:
        found = [[row[name] for row in rows] for rows in (one, two)]
        assert found[0] == pytest.approx(found[1], rel=0.02, abs=1e-3), name


@pytest.mark.parametrize(
    ("module", "variant", "run", "names"),
    [
        ("stages.sft", "gaussian", "sft_gaussian", ("loss", "gradient_norm")),
        ("stages.rft", "hygrpo", "rft_hygrpo", ("reward", "grad_norm", "pose/kl")),
    ],
)
def test_a_stage_under_torchrun_trains_as_one_process_does(finished, tmp_path, module, variant, run, names):
    project = finished.copy(tmp_path / "copy")
    alone = log(project, run)
    forget(project, run)
    project.run(*two_ranks.TORCHRUN, "-m", module, "--variant", variant, OMP_NUM_THREADS="1")
    assert_same(alone, log(project, run), names)
    assert (project.root / f"models/{run}/config.json").is_file()


def test_launch_makes_the_stage_two_processes_and_one_ends_what_two_began(finished, tmp_path):
    project = finished.copy(tmp_path / "copy")
    alone = log(project, "rft_hygrpo")
    forget(project, "rft_hygrpo")
    project.set_params(**{"launch.processes": 2, "rft.engine.zero_stage": 2})
    command = [sys.executable, "-m", "stages.rft", "--variant", "hygrpo"]
    paths = two_ranks.environment(project.root) | {"PYTHONPATH": str(project.root)}
    child = subprocess.Popen(command, cwd=project.root, env=paths, stderr=subprocess.PIPE)
    began = time.monotonic()
    while not list(project.root.glob(".scratch/rft/*/checkpoints/latest")):
        assert child.poll() is None, child.communicate()[1].decode()[-3000:]
        assert time.monotonic() - began < 240
        time.sleep(0.02)
    for process in [*descendants(child.pid), child.pid]:
        os.kill(process, signal.SIGKILL)
    child.wait()
    assert not (project.root / "models/rft_hygrpo").exists()
    project.set_params(**{"launch.processes": 1})
    project.run(*command)
    names = ("reward", "grad_norm", "pose/kl")
    assert_same(alone, log(project, "rft_hygrpo"), names)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, from /proc."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found
