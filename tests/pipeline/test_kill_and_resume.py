"""`kill -9` in the middle of convert, SFT and RFT; the next `dvc repro` ends with the outputs of an undisturbed run."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_when(project, module: list[str], ready, timeout: float = 240.0) -> None:
    """Starts a stage and kills it, with all its processes, as soon as `ready()` says that work is under way."""
    child = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=project.root,
        env=os.environ | {"PYTHONPATH": str(project.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    began = time.monotonic()
    while not ready():
        assert child.poll() is None, f"{module} ended before it could be killed"
        assert time.monotonic() - began < timeout
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def forget(project, *outs: str) -> None:
    """As if the stage had never run: outs, scratch and DVC's memory of the run are gone."""
    import shutil

    for out in outs:
        path = project.root / out
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    for family in ("sft", "rft", "convert"):
        shutil.rmtree(project.root / ".scratch" / family, ignore_errors=True)
    shutil.rmtree(project.root / ".dvc/cache/runs", ignore_errors=True)


@pytest.mark.parametrize(
    "stage, module, outs, under_way",
    [
        (
            "convert@coco",
            ["stages.convert", "--dataset", "coco"],
            ["data/shards/coco", "results/convert/coco.json"],
            ".scratch/convert/**/00000.json",
        ),
        (
            "sft@gaussian",
            ["stages.sft", "--variant", "gaussian"],
            ["models/sft_gaussian", "results/sft_gaussian"],
            ".scratch/sft/**/latest",
        ),
        (
            "rft@hygrpo",
            ["stages.rft", "--variant", "hygrpo"],
            ["models/rft_hygrpo", "results/rft_hygrpo"],
            ".scratch/rft/**/latest",
        ),
    ],
)
def test_a_killed_stage_ends_as_if_nothing_had_happened(finished, tmp_path, stage, module, outs, under_way):
    project = finished.copy(tmp_path / "copy")
    models = [out for out in outs if not out.startswith("results")]
    whole = {out: digest(project.root / out) for out in models}
    forget(project, *outs)
    kill_when(project, module, lambda: any(project.root.glob(under_way)))
    assert not (project.root / models[0]).exists(), "a killed stage left something half-written"
    project.repro("-s", stage)
    assert {out: digest(project.root / out) for out in models} == whole
