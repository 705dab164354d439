"""Runs one stage as `dvc --wait-for-lock repro -s NAME` in its own process group, under `parent_watchdog.py`.

`--wait-for-lock` because DVC otherwise gives up after three seconds and a finished training is lost. Every line is
written to a file; lines for Prefect are rate-limited, so that a verbose stage costs neither time nor database space.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from pose_rft.errors import visible
from pose_rft.io.lock import BUSY_STATUS

Outcome = Literal["Cached", "Restored", "Completed"]
Log = Callable[[str], None]
WATCHDOG = Path(__file__).with_name("parent_watchdog.py")
LOGS = Path(".scratch/flow_logs")
GRACE = 1.0  # seconds between SIGTERM and SIGKILL
LAST_LINES = 8
LOG_BURST, LOG_RATE, LINE_WIDTH = 500, 20.0, 2000  # lines at once, lines per second, characters
EXITED = re.compile(r"exited with (-?\d+)$")  # end of DVC's last line after a failed stage
KILLED = (-9, 137)
LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
# What DVC itself prints around a stage's output.
DVC_LINE = re.compile(
    r"^(Running stage '|> |ERROR: |Updating lock file|Generating lock file|Use `dvc push`|To track the changes|"
    r"To enable auto staging|\s*git add |\s*dvc config core\.autostage|Having any troubles\?|'.*\.dvc' didn't change)"
)
PROGRESS = re.compile(r"^(?P<label>.{1,80}?): (?P<done>\d+)/(?P<total>\d+) \S+ \(")  # pose_rft/progress.py


class StageFailed(Exception):
    """A stage ended with an error; the message ends with the stage's last lines.

    `cause`: `busy` (another run holds DVC's lock or the stage's files: wait for it), `killed` (by a signal that no
    flow sent, for example out of memory: a retry may succeed), or None.
    """

    def __init__(self, message: str, cause: Literal["busy", "killed"] | None = None) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class StageRun:
    name: str
    outcome: Outcome
    seconds: float


class Output:
    """Parses a stage's output: classifies what DVC did, keeps the last lines, detects locks, kills and progress."""

    def __init__(self) -> None:
        self.outcome: Outcome = "Completed"
        self.progress: float | None = None  # per cent
        self._ran = False
        self._last = ""  # DVC prints after the stage has ended, so this line is never the stage's
        self._own: deque[str] = deque(maxlen=LAST_LINES)
        self._dvc: deque[str] = deque(maxlen=LAST_LINES)

    def read(self, line: str) -> None:
        self._last = line
        if not self._ran:  # once the command runs, its output must not decide the outcome
            if "is cached - skipping run" in line:
                self.outcome = "Restored"
            elif "didn't change, skipping" in line:
                self.outcome = "Cached"
        if line.startswith("Running stage '"):
            self._ran, self.outcome = True, "Completed"
        (self._dvc if DVC_LINE.match(line) else self._own).append(line)
        if (match := PROGRESS.match(line)) and int(match["total"]) > 0:
            self.progress = min(100.0, 100.0 * int(match["done"]) / int(match["total"]))

    @property
    def cause(self) -> Literal["busy", "killed"] | None:
        """Why the stage failed, if that is not its own fault."""
        if not self._ran:  # all output is DVC's
            return "busy" if LOCKED.search("\n".join([*self._dvc, *self._own])) else None
        status = EXITED.search(self._last)
        if status is None or not self._last.startswith("ERROR: "):
            return None
        if int(status[1]) == BUSY_STATUS:
            return "busy"
        return "killed" if int(status[1]) in KILLED else None

    def reason(self) -> str:
        """Returns the stage's last lines, and DVC's if the problem is DVC's (a missing out, a lock, no such stage)."""
        if not self._ran:
            return "\n".join([*self._own, *self._dvc])
        own_errors = [line for line in self._dvc if line.startswith("ERROR: ") and "failed to run: " not in line]
        return "\n".join([*self._own, *own_errors])


class LogFile:
    """Writes all lines of a stage to a file. A full disk ends the file, never the stage."""

    def __init__(self, log: Log, path: Path, name: Path) -> None:
        self._log, self._name = log, name
        self._file: IO[str] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", buffering=1)
        except OSError as error:
            self._give_up(error)

    def __call__(self, line: str) -> None:
        try:
            if self._file:
                self._file.write(f"{line}\n")
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._file:
            with suppress(OSError):
                self._file.close()

    def _give_up(self, error: OSError) -> None:
        self._log(f"{self._name} cannot be written ({error.strerror}); the stage goes on, its further lines are lost")
        self.close()
        self._file = None


class Throttle:
    """Rate limiter: passes an initial burst of lines, then LOG_RATE per second; reports how many it withheld."""

    def __init__(self, log: Log, file: Path) -> None:
        self._log, self._file = log, file
        self._allowance, self._last, self._withheld = float(LOG_BURST), time.monotonic(), 0

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        self._allowance = min(float(LOG_BURST), self._allowance + (now - self._last) * LOG_RATE)
        self._last = now
        if self._allowance < 1.0:
            self._withheld += 1
            return
        self._allowance -= 1.0
        self.flush()
        self._log(line[:LINE_WIDTH])

    def flush(self) -> None:
        if self._withheld:
            self._log(f"… {self._withheld} lines are only in {self._file}")
            self._withheld = 0


class Processes:
    """The running stages of one flow; `stop` ends them all and prevents new ones from starting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._stopped = False

    def start(self, command: list[str], root: Path, cores: Sequence[int] = ()) -> "subprocess.Popen[str]":
        """Starts a command under the watchdog; raises StageFailed after `stop`."""
        with self._lock:
            if self._stopped:
                raise StageFailed("the flow was stopped before this stage began")
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(WATCHDOG), ",".join(map(str, cores)), *command],
                cwd=root,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running[child.pid] = child
        threading.Thread(target=_sweep, args=(child,), daemon=True).start()
        return child

    def finished(self, child: "subprocess.Popen[str]") -> None:
        """Call when the child has ended."""
        with self._lock:
            self._running.pop(child.pid, None)

    @property
    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Ends every running stage with all its processes, within `GRACE` seconds."""
        with self._lock:
            self._stopped = True
            children = list(self._running.values())
        end_groups(children)


def end_groups(children: "list[subprocess.Popen[str]]") -> None:
    """Sends SIGTERM to each process group, and SIGKILL to what is left after `GRACE` seconds."""
    for child in children:
        _signal_group(child, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(0.02)
    for child in children:
        _signal_group(child, signal.SIGKILL)


def run_stage(
    name: str,
    root: Path,
    log: Log,
    *,
    processes: Processes | None = None,
    limit: float | None = None,
    on_progress: Callable[[float], None] | None = None,
    options: tuple[str, ...] = (),
    cores: Sequence[int] = (),
) -> StageRun:
    """Reproduces one stage and logs its output line by line.

    Args:
        limit: seconds after which the stage is ended with all its processes.
        on_progress: called with the progress in per cent as the stage prints it.
        options: further options of `dvc repro`, such as `--pull`.
        cores: CPU cores that the stage may use; empty means all.
    Raises:
        StageFailed: the command ended with an error, took longer than `limit`, or was stopped.
    """
    began = time.monotonic()
    processes = processes or Processes()
    file = LOGS / f"{name.replace('/', '_')}.log"
    output, passed, whole = Output(), Throttle(log, file), LogFile(log, root / file, file)
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", *options, name]
    child = processes.start(command, root, cores)
    too_long = threading.Event()
    timer = _end_after(limit, child, too_long) if limit else None
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if text := visible(line.rstrip()):
                whole(text)
                output.read(text)
                passed(text)
                if on_progress and PROGRESS.match(text) and output.progress is not None:
                    on_progress(output.progress)
        code = child.wait()
    finally:
        if timer:
            timer.cancel()
        processes.finished(child)
        passed.flush()
        whole.close()
    if too_long.is_set():
        raise StageFailed(f"Stage {name} was ended after its limit of {limit:g} s. {output.reason()}")
    if processes.stopped:
        raise StageFailed(f"Stage {name} was stopped.")
    if code != 0:
        raise StageFailed(f"Stage {name} failed: {output.reason()}", output.cause)
    return StageRun(name, output.outcome, time.monotonic() - began)


def _end_after(limit: float, child: "subprocess.Popen[str]", too_long: threading.Event) -> threading.Timer:
    """Starts a timer that sets `too_long` and ends a stage with all its processes after `limit` seconds."""

    def end() -> None:
        too_long.set()
        end_groups([child])

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
    return timer


def _sweep(child: "subprocess.Popen[str]") -> None:
    """Kills what a stage leaves behind in its process group, which would keep its output open and hold a GPU."""
    child.wait()
    _signal_group(child, signal.SIGKILL)


def _signal_group(child: "subprocess.Popen[str]", number: int) -> None:
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS raises the latter for a group of zombies
        return


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
