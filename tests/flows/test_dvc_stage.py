import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from flows import hosts
from flows.dvc_graph import out_of_date, read_graph, restorable, run_key
from flows.dvc_stage import LogFile, Output, Processes, StageFailed, Throttle, run_stage
from pose_rft.errors import PoseRftError

# `stubborn` ignores SIGTERM and has a child of its own.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", sys.argv[1]])
print("under way", flush=True)
time.sleep(120)
"""


@pytest.fixture
def project(tmp_path):
    """A small DVC project: one -> two@a, two@b -> three, and stages that fail, last, or talk much."""
    (tmp_path / "params.yaml").write_text("n: 1\n")
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "dvc.yaml").write_text(
        textwrap.dedent("""
        vars: [{mark: MARK}]
        stages:
          one: {cmd: "echo ${n} > one.txt", params: [n], deps: [stubborn.py], outs: [one.txt]}
          two:
            foreach: [a, b]
            do: {cmd: "cp one.txt two_${item}.txt", deps: [one.txt], outs: ["two_${item}.txt"]}
          three: {cmd: "cat two_a.txt two_b.txt > three.txt", deps: [two_a.txt, two_b.txt], outs: [three.txt]}
          broken: {cmd: "echo is cached - skipping run && echo why it failed && exit 3", outs: [never.txt]}
          killed: {cmd: "kill -9 $$", outs: [never_either.txt]}
          long: {cmd: "python stubborn.py ${mark}", deps: [one.txt], outs: [late.txt]}
          leaves: {cmd: "(sleep 120; echo ${mark}) & echo away", outs: [away.txt]}
          talk: {cmd: "seq 100000 && echo t > talk.txt", outs: [talk.txt]}
        """).replace("MARK", mark(tmp_path))
    )
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return tmp_path


def mark(project) -> str:
    return f"mark-{project.parent.name}-{project.name}"


def marked(project) -> int:
    """Live processes of this project's stubborn stage."""
    shown = subprocess.run(["ps", "-wweo", "stat=,args="], capture_output=True, text=True).stdout.splitlines()
    return sum(mark(project) in line and not line.startswith("Z") for line in shown)


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_graph_lists_upstream_stages_first(project):
    graph = read_graph(project)
    names = list(graph.upstream)
    assert graph.upstream["three"] == ("two@a", "two@b")
    assert all(names.index(up) < names.index(name) for name in names for up in graph.upstream[name])
    assert graph.of_families("two") == ["two@a", "two@b"]
    assert graph.before({"three"}) == {"one", "two@a", "two@b", "three"}
    with pytest.raises(PoseRftError, match="no stage tow"):
        graph.of_families("tow")


def test_params_that_dvc_cannot_read_are_one_sentence(project):
    (project / "params.yaml").write_text("n: [1,\n")
    with pytest.raises(PoseRftError, match="cannot read the pipeline") as caught:
        read_graph(project)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_stage_runs_then_is_unchanged_then_is_restored(project):
    lines = []
    assert run_stage("one", project, lines.append).outcome == "Completed"
    assert run_stage("one", project, lines.append).outcome == "Cached"
    first = run_key(project, "one")
    (project / "params.yaml").write_text("n: 2\n")
    assert run_key(project, "one") != first
    assert "one" in out_of_date(project, ["one"])
    assert not restorable(project, "one")
    assert run_stage("one", project, lines.append).outcome == "Completed"
    (project / "params.yaml").write_text("n: 1\n")
    assert run_key(project, "one") == first
    assert restorable(project, "one")
    assert run_stage("one", project, lines.append).outcome == "Restored"
    assert (project / "one.txt").read_text() == "1\n"
    assert out_of_date(project, ["one"]) == set()


def test_a_failing_stage_says_why_in_its_own_words(project):
    with pytest.raises(StageFailed) as caught:
        run_stage("broken", project, lambda line: None)
    assert str(caught.value).endswith("why it failed")
    assert "exited with" not in str(caught.value) and caught.value.cause is None


def test_what_a_stage_leaves_behind_ends_with_it(project):
    with pytest.raises(StageFailed, match=r"away\.txt"):  # DVC misses the out; the command itself ended well
        run_stage("leaves", project, lambda line: None)
    assert marked(project) == 0


def test_a_killed_stage_is_told_from_one_that_failed(project):
    with pytest.raises(StageFailed) as caught:
        run_stage("killed", project, lambda line: None)
    assert caught.value.cause == "killed"


@pytest.mark.slow
def test_stopping_ends_a_stage_with_its_children(project):
    run_stage("one", project, print)
    processes, failures, lines = Processes(), [], []

    def work():
        try:
            run_stage("long", project, lines.append, processes=processes)
        except StageFailed as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: "under way" in lines)
    processes.stop()
    thread.join(timeout=10)
    assert marked(project) == 0
    assert failures and failures[0].cause is None
    with pytest.raises(StageFailed, match="before this stage began"):
        run_stage("one", project, print, processes=processes)


@pytest.mark.slow
def test_a_time_limit_ends_the_whole_process_group(project):
    run_stage("one", project, print)
    with pytest.raises(StageFailed, match="after its limit of 3 s") as caught:
        run_stage("long", project, lambda line: None, limit=3)
    assert "under way" in str(caught.value)
    assert marked(project) == 0


@pytest.mark.slow
def test_nothing_outlives_a_killed_engine(project):
    run_stage("one", project, print)
    engine = subprocess.Popen(
        [sys.executable, "-c", "import sys, pathlib; from flows.dvc_stage import LogFile, run_stage; "
         "run_stage('long', pathlib.Path(sys.argv[1]), lambda line: print(line, flush=True))", str(project)],
        stdout=subprocess.PIPE, text=True, cwd=Path.cwd(),
    )  # fmt: skip
    assert any("under way" in line for line in iter(engine.stdout.readline, ""))
    assert marked(project) > 0
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    wait_until(lambda: marked(project) == 0, 5)


@pytest.mark.slow
def test_a_hundred_thousand_lines_lose_none(project):
    lines = []
    assert run_stage("talk", project, lines.append).outcome == "Completed"
    assert len(lines) < 1000 and any("lines are only in" in line for line in lines)
    whole = (project / ".scratch/flow_logs/talk.log").read_text().splitlines()
    assert len([line for line in whole if line.isdigit()]) == 100_000


def outcome(*lines):
    output = Output()
    for line in lines:
        output.read(line)
    return output


def test_what_dvc_prints_is_classified():
    assert outcome("Stage 'a' didn't change, skipping").outcome == "Cached"
    assert outcome("Stage 'a' is cached - skipping run, checking out outputs").outcome == "Restored"
    assert outcome("Running stage 'a':", "> echo", "it didn't change, skipping").outcome == "Completed"


def test_a_lock_is_busy_and_a_stages_own_words_are_not():
    busy = "ERROR: '/x' is busy, it is being blocked by:\n  (PID 1): dvc repro"
    assert outcome(busy).cause == "busy"
    assert outcome("Running stage 'a':", "> echo", "'x' is busy, it is being blocked by a lock").cause is None
    assert outcome("Running stage 'a':", "> x", "ERROR: failed to reproduce 'a': x, exited with -9").cause == "killed"
    assert outcome("Running stage 'a':", "> x", "ERROR: failed to reproduce 'a': x, exited with 1").cause is None


def test_progress_lines_become_per_cents():
    assert outcome("Running stage 'a':", "rft hygrpo: 35/140 steps (1.2/s) · loss 0.1").progress == 25.0
    assert outcome("Running stage 'a':", "at 10:35/140").progress is None


def test_a_throttle_passes_a_burst_and_says_what_it_kept_back(tmp_path):
    passed = []
    throttle = Throttle(passed.append, tmp_path / "x.log")
    for number in range(2000):
        throttle(str(number))
    throttle.flush()
    assert passed[:3] == ["0", "1", "2"] and len(passed) < 700
    kept_back = sum(int(line.split()[1]) for line in passed if line.startswith("…"))
    assert kept_back + sum(line.isdigit() for line in passed) == 2000


def test_a_stage_that_runs_in_another_clone_is_busy():
    said = "error: Another process works in /nfs/scratch/sft/1a2b; wait for its end, or stop it."
    busy, failed = (f"ERROR: failed to reproduce 'sft': failed to run: x, exited with {status}" for status in (75, 2))
    assert outcome("Running stage 'sft':", "> python train.py", said, busy).cause == "busy"
    assert outcome("Running stage 'sft':", said, "[rank1]: Connection closed by peer", busy).cause == "busy"
    # S11: what a stage says, or a file's name in it, is no status
    assert outcome("Running stage 'sft':", said, failed).cause is None
    assert outcome("Running stage 'sft':", busy, failed).cause is None
    assert outcome("Running stage 'sft':", busy, "error: the loss is not finite").cause is None


def test_a_full_disk_ends_the_file_of_lines_and_not_the_stage(tmp_path):
    told = []
    for path in (Path("/dev/full"), tmp_path / "file/below"):
        (tmp_path / "file").touch()
        file = LogFile(told.append, path, Path("sft.log"))
        for number in range(3):
            file(str(number))
        file.close()
    assert len(told) == 2
    assert "sft.log cannot be written (No space left on device); the stage goes on" in told[0]


def test_stages_side_by_side_have_cores_of_their_own_and_a_third_has_all(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
    monkeypatch.setenv("POSE_RFT_STAGES_AT_ONCE", "2")
    monkeypatch.setenv("POSE_RFT_GPU_SLOTS", "0")
    with hosts.core_share() as first, hosts.core_share() as second, hosts.core_share() as third:
        assert (first, second, third) == ([0, 2, 4], [1, 3], [])
    with hosts.core_share() as again:
        assert again == [0, 2, 4]
    (tmp_path / "others").mkdir()
    link = tmp_path / "elsewhere" / f"pose-rft-{os.getuid()}"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "others")
    with monkeypatch.context() as patched:  # S17
        for variable in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"):
            patched.delenv(variable, raising=False)
        patched.setattr(tempfile, "tempdir", str(link.parent))
        with hosts.core_share() as planted:
            assert planted == [] and not list((tmp_path / "others").iterdir())
    with pytest.raises(PoseRftError, match="of the stage itself"), hosts.core_share():
        raise PoseRftError("of the stage itself")
    monkeypatch.setenv("POSE_RFT_GPU_SLOTS", "1")
    with hosts.core_share() as with_gpu:
        assert with_gpu == []


def test_a_stage_and_what_it_starts_see_their_cores_only(project):
    mine = sorted(os.sched_getaffinity(0))[:1]
    told = []
    (project / "show.py").write_text("import os; print(os.sched_getaffinity(0)); open('c.txt', 'w').close()")
    stage = '  cores: {cmd: "sh -c \\"python show.py\\"", outs: [c.txt]}\n'
    (project / "dvc.yaml").write_text((project / "dvc.yaml").read_text() + stage)
    run_stage("cores", project, told.append, cores=mine)
    assert f"{{{mine[0]}}}" in told
