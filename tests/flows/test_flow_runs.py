"""The flow runs on a small DVC project with the pipeline's stage names, against Prefect's own test server."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text("lr: 1\n")
    (tmp_path / "dvc.yaml").write_text(
        textwrap.dedent("""
        stages:
          sample: {cmd: "echo s > sample.txt", outs: [sample.txt]}
          inventory: {cmd: "echo i > inventory.txt", deps: [sample.txt], outs: [inventory.txt], always_changed: true}
          convert:
            foreach: [a, b]
            do: {cmd: "cp inventory.txt shards_${item}.txt", deps: [inventory.txt], outs: ["shards_${item}.txt"]}
          sft: {cmd: "cat shards_a.txt shards_b.txt > sft.txt", deps: [shards_a.txt, shards_b.txt], outs: [sft.txt]}
          rft: {cmd: "echo ${lr} > rft.txt", deps: [sft.txt], params: [lr], outs: [rft.txt]}
          evaluate: {cmd: "cp rft.txt evaluate.txt", deps: [rft.txt], outs: [evaluate.txt]}
        """)
    )
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def outcomes(root):
    from flows.pipeline import pipeline

    return {run.name: run.outcome for run in pipeline(root)}


def test_the_pipeline_runs_everything_once_and_then_only_what_changed(prefect_server, project):
    first = outcomes(project)
    assert set(first) == {"sample", "inventory", "convert@a", "convert@b", "sft", "rft", "evaluate"}
    assert set(first.values()) == {"Completed"}
    again = outcomes(project)
    assert again.pop("inventory") == "Completed"  # always looks
    assert set(again.values()) == {"Cached"}
    (project / "params.yaml").write_text("lr: 2\n")
    changed = outcomes(project)
    assert [name for name, outcome in changed.items() if outcome == "Completed"] == ["inventory", "rft", "evaluate"]
    (project / "params.yaml").write_text("lr: 1\n")
    back = outcomes(project)
    assert back["rft"] == back["evaluate"] == "Restored"


def test_a_failing_stage_fails_the_flow_and_stops_what_waits_for_it(prefect_server, project):
    text = (project / "dvc.yaml").read_text().replace("cat shards_a.txt shards_b.txt > sft.txt", "exit 4")
    (project / "dvc.yaml").write_text(text)
    with pytest.raises(RuntimeError, match="sft"):
        outcomes(project)
    assert not (project / "rft.txt").exists()
