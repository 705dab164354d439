"""One process, several, or several machines, from one params section."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from stages.launch import LaunchParams, hostfile_command, launched, process_count
from tests.support import two_ranks


def write_params(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "params.yaml").write_text(text)
    monkeypatch.setenv("POSE_RFT_PARAMS", str(folder / "params.yaml"))
    monkeypatch.delenv("RANK", raising=False)


def test_one_process_starts_nothing(tmp_path, monkeypatch):
    write_params(tmp_path, "launch: {processes: 1}\n", monkeypatch)
    assert not launched("no.such.module", [])


def test_a_process_that_a_launcher_started_starts_nothing(tmp_path, monkeypatch):
    write_params(tmp_path, "launch: {processes: 8}\n", monkeypatch)
    monkeypatch.setenv("RANK", "3")
    assert not launched("no.such.module", [])


def test_auto_is_a_process_for_every_gpu_and_two_without_one(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert process_count(LaunchParams(processes="auto")) == 8
    assert process_count(LaunchParams(processes=3)) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert process_count(LaunchParams(processes="auto")) == min(2, len(os.sched_getaffinity(0)))


def test_a_hostfile_that_does_not_exist_is_named(tmp_path, monkeypatch):
    write_params(tmp_path, "launch: {hostfile: nowhere, address: 10.0.0.1}\n", monkeypatch)
    with pytest.raises(PoseRftError, match=r"launch\.hostfile nowhere does not exist, expected a line"):
        launched("stages.rft", [])


def test_processes_and_hostfile_together_are_refused():
    with pytest.raises(PoseRftError, match="not both"):
        parse({"processes": 2, "hostfile": "hosts"}, LaunchParams, "`launch`")


def test_several_machines_need_an_address_that_the_user_names():  # S1
    with pytest.raises(PoseRftError, match=r"launch\.hostfile needs launch\.address"):
        parse({"hostfile": "hosts"}, LaunchParams, "`launch`")


def test_deepspeeds_launcher_understands_the_command_for_several_machines():
    from deepspeed.launcher.runner import parse_args

    command = hostfile_command("hosts", "10.0.0.1", "stages.rft", ["--variant", "hygrpo"])
    read = parse_args(command[command.index("deepspeed.launcher.runner") + 1 :])
    assert (read.hostfile, read.module, read.no_local_rank, read.quiet) == ("hosts", True, True, True)
    assert read.master_addr == "10.0.0.1"
    assert (read.user_script, read.user_args) == ("stages.rft", ["--variant", "hygrpo"])


WORK = """
import os, sys
from pathlib import Path
from pose_rft.errors import PoseRftError
from stages.common import stage_main

def main(arguments):
    Path(arguments[0], "rank" + os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])
    if arguments[1:]:
        raise PoseRftError("The batch does not split.")

stage_main(main)
"""
START = """
import sys
from stages.common import stage_main
from stages.launch import launched
stage_main(lambda arguments: print(launched("work", arguments)))
"""


def starter(folder: Path, work: str = WORK) -> tuple[list[str], dict[str, str]]:
    """Writes `work` as a module; the command that launches it twice, and its environment."""
    (folder / "work.py").write_text(work)
    (folder / "start.py").write_text(START)
    (folder / "params.yaml").write_text("launch: {processes: 2}\n")
    return [sys.executable, "start.py", str(folder)], two_ranks.environment(folder)


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command, paths = starter(folder)
    return subprocess.run([*command, *arguments], cwd=folder, env=paths, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_as_many_processes_run_as_asked_for(tmp_path):
    done = start(tmp_path)
    assert done.stdout.strip() == "True", done.stderr
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


@pytest.mark.slow
def test_an_error_in_a_process_is_its_sentence_and_status_and_no_traceback(tmp_path):
    done = start(tmp_path, "fail")
    assert done.returncode == 2 and "error: The batch does not split." in done.stderr
    assert "Traceback" not in done.stderr, done.stderr


ENDLESS = """
import os, sys, time
from pathlib import Path
from stages.launch import launched

assert not launched("work", [])
Path(sys.argv[1], "rank" + os.environ["RANK"]).write_text(str(os.getpid()))
time.sleep(300)
"""


@pytest.mark.slow
def test_processes_end_with_a_killed_launcher(tmp_path):
    command, paths = starter(tmp_path, ENDLESS)
    child = subprocess.Popen(command, cwd=tmp_path, env=paths, stderr=subprocess.DEVNULL)
    ranks = [tmp_path / f"rank{rank}" for rank in (0, 1)]
    wait_until(lambda: all(rank.exists() and rank.read_text() for rank in ranks), 60)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    wait_until(lambda: not any(Path(f"/proc/{rank.read_text()}").exists() for rank in ranks), 10)


def wait_until(condition, seconds: float) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)
