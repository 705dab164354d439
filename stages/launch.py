"""`launch`: runs SFT and RFT in several processes, with the same `python -m stages.NAME` as in one process.

`auto` is one process per GPU, or two without a GPU, since two with a core each train faster than one with both
(docs/performance.md). On one machine, this module starts them and they meet in a private folder (`training/ranks.py`).
On several, DeepSpeed's launcher starts them by ssh on the machines of its hostfile; each machine must see the project
under the same path and have the same environment, and `launch.address` names the network that connects them.
A stage that another launcher started (`torchrun --nproc-per-node 8 -m stages.rft --variant hygrpo`) starts nothing.
Processes end with the one that started them, even if that was killed.
The number of processes changes results only by rounding, so DVC does not track this section.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import model_validator

from pose_rft.cores import cores
from pose_rft.errors import PoseRftError
from pose_rft.params import Count, Section, load

LAUNCHER = "POSE_RFT_LAUNCHER"  # in the environment of processes started here: their launcher's pid
STORE = "POSE_RFT_STORE"  # and the file through which they meet (training/ranks.py)
GRACE = 10.0  # seconds that a process gets to end after another has failed


class LaunchParams(Section):
    """`launch`: processes on this machine, or a hostfile with a line `HOST slots=GPUS` for each machine.

    `address` is the first machine's address in the network that connects them. Anyone who can send to that network can
    disturb the training, so it must be a private one.
    """

    processes: Count | Literal["auto"] = "auto"
    hostfile: str | None = None
    address: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "LaunchParams":
        if self.hostfile is not None and self.processes not in (1, "auto"):
            raise ValueError("give launch.processes or launch.hostfile, not both: a hostfile counts its own slots")
        if self.hostfile is not None and self.address is None:
            raise ValueError(
                "launch.hostfile needs launch.address, an address of its first machine in the private network that "
                "joins the machines: training listens there and nowhere else"
            )
        return self


def launched(module: str, arguments: list[str]) -> bool:
    """Runs `python -m MODULE ARGUMENTS` in as many processes as `launch` says, and waits for them.

    Returns:
        False if nothing was started: `launch` asks for one process, or this process is one of those started.
    Raises:
        PoseRftError: the hostfile does not exist.
        SystemExit: a process failed; carries its status.
    """
    if "RANK" in os.environ:
        if LAUNCHER in os.environ:
            threading.Thread(target=_end_after, args=(int(os.environ[LAUNCHER]),), daemon=True).start()
        return False
    params = load("launch", LaunchParams)
    if params.hostfile is not None:
        status = _there(params.hostfile, str(params.address), module, arguments)
    elif (processes := process_count(params)) > 1:
        status = run_here(processes, [sys.executable, "-u", "-m", module, *arguments])
    else:
        return False
    if status:
        raise SystemExit(status)
    return True


def process_count(params: LaunchParams) -> int:
    """Returns the number of processes on this machine; `auto`: one per GPU, or two without a GPU if two cores exist."""
    if params.processes != "auto":
        return params.processes
    import torch

    return torch.cuda.device_count() or min(2, cores())


def _end_after(launcher: int) -> None:
    """Exits once the launcher is gone: otherwise this process would keep training and block the next run."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os._exit(1)


def run_here(processes: int, command: list[str]) -> int:
    """Runs `command` as ranks of one training on this machine; a rank that fails ends the others.

    Returns:
        The status of the rank that failed (128 + n if signal n ended it), or 0.
    """
    with TemporaryDirectory(prefix="pose-rft-") as folder:  # mode 0700
        shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, STORE: f"{folder}/store"}
        shared |= {"OMP_NUM_THREADS": max(1, cores() // processes), LAUNCHER: os.getpid()}
        signal.signal(signal.SIGTERM, _as_exit)
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(processes):
                own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
                ranks.append(subprocess.Popen(command, env=os.environ | own))
            return _first_failure(ranks)
        finally:
            _end(ranks)


def _as_exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _first_failure(ranks: Sequence["subprocess.Popen[bytes]"]) -> int:
    while True:
        codes = [rank.poll() for rank in ranks]
        failed = [code for code in codes if code]
        if failed:
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if None not in codes:
            return 0
        time.sleep(0.05)


def _end(ranks: Sequence["subprocess.Popen[bytes]"]) -> None:
    for rank in ranks:
        with suppress(ProcessLookupError):
            rank.terminate()
    deadline = time.monotonic() + GRACE
    for rank in ranks:
        try:
            rank.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _there(hostfile: str, address: str, module: str, arguments: list[str]) -> int:
    if not Path(hostfile).is_file():
        raise PoseRftError(f"launch.hostfile {hostfile} does not exist, expected a line `HOST slots=GPUS` per machine.")
    return subprocess.run(hostfile_command(hostfile, address, module, arguments)).returncode


def hostfile_command(hostfile: str, address: str, module: str, arguments: list[str]) -> list[str]:
    """Returns the command that runs DeepSpeed's launcher on all machines of a hostfile."""
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", hostfile, "--master_addr", address]
    return [*runner, "--quiet", "--no_local_rank", "--module", module, *arguments]
