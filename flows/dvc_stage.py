"""One stage as one `dvc --wait-for-lock repro -s NAME` in its own process group.

`--wait-for-lock` because DVC otherwise gives up after three seconds and a finished training is lost. The child dies
with its parent (Linux), so that nothing trains on unseen; `stop_all` ends every running stage at once.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["Cached", "Restored", "Completed"]
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_running: dict[int, subprocess.Popen[str]] = {}
_lock = threading.Lock()


class StageFailed(Exception):
    """A stage ended with an error; the text holds its last lines."""


@dataclass(frozen=True)
class StageRun:
    name: str
    outcome: Outcome
    seconds: float


def run_stage(name: str, root: Path, log: Callable[[str], None]) -> StageRun:
    """Reproduces one stage and passes its output on line by line.

    Raises:
        StageFailed: the command ended with an error.
    """
    began = time.monotonic()
    # Stages run side by side here: threads that spin while they wait would take the cores from the other stage.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    child = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    with _lock:
        _running[child.pid] = child
    lines: list[str] = []
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if text := line.rstrip():
                lines.append(text)
                log(text)
        code = child.wait()
    finally:
        with _lock:
            _running.pop(child.pid, None)
    if code != 0:
        raise StageFailed(f"Stage {name} ended with status {code}: {' | '.join(lines[-5:])}")
    return StageRun(name, classify(lines), time.monotonic() - began)


def classify(lines: list[str]) -> Outcome:
    """What DVC did, from what it printed."""
    text = "\n".join(lines)
    if "is cached - skipping run" in text:
        return "Restored"
    if "didn't change, skipping" in text:
        return "Cached"
    return "Completed"


def stop_all() -> None:
    """Ends every running stage with all its processes."""
    with _lock:
        children = list(_running.values())
    for child in children:
        try:
            os.killpg(child.pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    for child in children:
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
