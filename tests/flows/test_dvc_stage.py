import subprocess
import sys
import textwrap
import time

import pytest

from flows.dvc_graph import out_of_date, read_graph
from flows.dvc_stage import StageFailed, classify, run_stage, stop_all


@pytest.fixture
def project(tmp_path):
    """A small DVC project: one -> two@a, two@b -> three, and a stage that fails."""
    (tmp_path / "params.yaml").write_text("n: 1\n")
    (tmp_path / "dvc.yaml").write_text(
        textwrap.dedent("""
        stages:
          one: {cmd: "echo ${n} > one.txt", params: [n], outs: [one.txt]}
          two:
            foreach: [a, b]
            do: {cmd: "cp one.txt two_${item}.txt", deps: [one.txt], outs: ["two_${item}.txt"]}
          three: {cmd: "cat two_a.txt two_b.txt > three.txt", deps: [two_a.txt, two_b.txt], outs: [three.txt]}
          broken: {cmd: "echo why it failed && exit 3", deps: [one.txt], outs: [never.txt]}
          long: {cmd: "sleep 60", deps: [one.txt], outs: [late.txt]}
        """)
    )
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_the_graph_lists_upstream_stages_first(project):
    graph = read_graph(project)
    names = list(graph.upstream)
    assert graph.upstream["three"] == ("two@a", "two@b")
    assert all(names.index(up) < names.index(name) for name in names for up in graph.upstream[name])
    assert graph.family("two") == ["two@a", "two@b"]


def test_a_stage_runs_then_is_unchanged_then_is_restored(project):
    lines = []
    assert run_stage("one", project, lines.append).outcome == "Completed"
    assert run_stage("one", project, lines.append).outcome == "Cached"
    (project / "params.yaml").write_text("n: 2\n")
    assert "one" in out_of_date(project, ["one"])
    assert run_stage("one", project, lines.append).outcome == "Completed"
    (project / "params.yaml").write_text("n: 1\n")
    assert run_stage("one", project, lines.append).outcome == "Restored"
    assert (project / "one.txt").read_text() == "1\n"
    assert out_of_date(project, ["one"]) == set()


def test_a_failing_stage_says_why(project):
    run_stage("one", project, print)
    with pytest.raises(StageFailed, match="why it failed"):
        run_stage("broken", project, lambda line: None)


def test_stopping_ends_a_running_stage_at_once(project):
    import threading

    run_stage("one", project, print)
    failures = []

    def work():
        try:
            run_stage("long", project, lambda line: None)
        except StageFailed as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(3)
    began = time.monotonic()
    stop_all()
    thread.join(timeout=10)
    assert failures and time.monotonic() - began < 8


def test_what_dvc_prints_is_classified():
    assert classify(["Stage 'a' didn't change, skipping"]) == "Cached"
    assert classify(["Stage 'a' is cached - skipping run, checking out outputs"]) == "Restored"
    assert classify(["Running stage 'a':", "> echo"]) == "Completed"
