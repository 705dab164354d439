"""The whole graph without three of its data sets, and with names that are none (A13, S7)."""

import json

import pytest

from tests.pipeline.conftest import new_project

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

LEFT_OUT = ("mpii", "bedlam", "llava_instruct")  # among them those of the CLIP tower and of all dialogues


def test_data_sets_that_params_leave_out_are_left_out_of_everything(tmp_path):  # A13
    """Only `datasets` is edited: mixtures, held-out and test sets still name them all."""
    project = new_project(tmp_path / "project")
    datasets = project.params()["datasets"]
    project.set_params(datasets={name: choices for name, choices in datasets.items() if name not in LEFT_OUT})
    ran = project.repro()
    assert "report" in ran
    summary = json.loads((project.root / "metrics/summary.json").read_text())
    assert set(summary["data"]) == set(datasets) - set(LEFT_OUT)
    for test_set in ("3dpw", "h36m_p2"):
        assert summary["pose_error"][test_set]["rft_hygrpo"]["mpjpe"] > 0
    assert "text" not in summary["heldout_reward"]["rft_hygrpo"]
    page = (project.root / "report/index.html").read_text()
    assert "HyGRPO" in page and "llava_instruct" not in page
    shown = project.run("pose-rft", "tables").stdout
    assert "HyGRPO" in shown
    assert project.repro() == ["code", "inventory"]
    project.set_params(datasets=datasets)
    project.run("dvc", "repro", "convert@mpii")
    assert (project.root / "data/shards/mpii/train/manifest.json").is_file()


@pytest.mark.parametrize("name", ["coco; touch x", "../../docs", "$(touch x)", "a\nb"])
def test_a_name_in_params_is_no_command_and_no_folder(tmp_path, name):  # S7
    project = new_project(tmp_path / "project")
    kept = project.root / "docs"
    kept.mkdir()
    (kept / "kept.md").write_text("kept")
    project.set_params(datasets=project.params()["datasets"] | {name: {"splits": ["train"]}})
    for command in (["dvc", "repro"], ["dvc", "repro", "convert@coco"], ["python", "-m", "stages.inventory"]):
        done = project.run(*command, check=False)
        assert done.returncode != 0 and "known data sets are h36m" in done.stderr and "Traceback" not in done.stderr
    planned = project.run("dvc", "repro", "--dry", check=False)
    assert "touch" not in planned.stdout
    done = project.run("pose-rft", "doctor", "data", check=False)
    assert done.returncode == 2 and "known data sets are h36m" in done.stderr
    assert (kept / "kept.md").is_file() and not (project.root / "x").exists()
