"""Runs a command for as long as its parent lives: `parent_watchdog.py CORES COMMAND …`, started by `dvc_stage`.

The parent holds the other end of this process's stdin. When that end closes because the parent was killed, the
watchdog kills the whole process group, so that no orphaned training holds a GPU and blocks the next run. It uses plain
pipes, so it works wherever process groups do, and only the standard library, so it starts in a few milliseconds. CORES
lists the CPU cores that the command may use, such as `0,2`; empty means all.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 1.0  # seconds between SIGTERM and SIGKILL


parent_is_gone = threading.Event()


def end_group_with_parent() -> None:
    """Waits for EOF on stdin, then kills the process group that this process leads."""
    while os.read(0, 64):
        pass
    parent_is_gone.set()
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def main(cores: str, command: list[str]) -> int:
    """Runs the command and returns its exit status, or 128 + n if signal n ended it."""
    if cores:
        os.sched_setaffinity(0, map(int, cores.split(",")))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the command receives it too; the watchdog outlives it
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_default_sigterm)
    watch = threading.Thread(target=end_group_with_parent, daemon=True)
    watch.start()
    code = child.wait()
    if parent_is_gone.is_set():
        watch.join()  # until SIGKILL ends what ignored SIGTERM, and this process
    return code if code >= 0 else 128 - code


def _default_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ignored signals are inherited


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
