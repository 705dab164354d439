"""`launch`: SFT and RFT over several processes, from the same `python -m stages.NAME` that one process takes.

One process per GPU; without a GPU two are `auto`, since two that have a core each train faster than one that has both
(docs/performance.md). On one machine they are torchrun's, on several those of DeepSpeed's launcher, which reaches the
machines of its hostfile by ssh; each of them must see the project under the same path and have the same environment.
A stage that a launcher started by hand (`torchrun --nproc-per-node 8 -m stages.rft --variant hygrpo`) starts nothing.
Processes end with the one that started them, even if that was killed.
The number of processes changes no result but by rounding, so DVC does not follow this section.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pose_rft.core.errors import PoseRftError
from pose_rft.core.params import Count, Section, load
from stages.common import cores

LAUNCHER = "POSE_RFT_LAUNCHER"  # in the environment of processes started here: the number of the one that did


class LaunchParams(Section):
    """`launch`: processes on this machine, or a hostfile with a line `HOST slots=GPUS` for each machine."""

    processes: Count | Literal["auto"] = "auto"
    hostfile: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "LaunchParams":
        if self.hostfile is not None and self.processes not in (1, "auto"):
            raise ValueError("give launch.processes or launch.hostfile, not both: a hostfile counts its own slots")
        return self


def launched(module: str, arguments: list[str]) -> bool:
    """Runs `python -m MODULE ARGUMENTS` in as many processes as `launch` says, and waits for them.

    Returns:
        False where nothing was started: `launch` asks for one process, or this process is one of those started.
    Raises:
        PoseRftError: the hostfile does not exist.
        SystemExit: a process failed; with its status.
    """
    if "RANK" in os.environ:
        if LAUNCHER in os.environ:
            threading.Thread(target=_end_after, args=(int(os.environ[LAUNCHER]),), daemon=True).start()
        return False
    params = load("launch", LaunchParams)
    if params.hostfile is not None:
        status = _there(params.hostfile, module, arguments)
    elif (processes := process_count(params)) > 1:
        status = _here(processes, module, arguments)
    else:
        return False
    if status:
        raise SystemExit(status)
    return True


def process_count(params: LaunchParams) -> int:
    """Processes on this machine; for `auto` one for each GPU, and without any two if there are two cores."""
    if params.processes != "auto":
        return params.processes
    import torch

    return torch.cuda.device_count() or min(2, cores())


def _end_after(launcher: int) -> None:
    """Without its launcher a process would train on unseen, in the way of the next run."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os._exit(1)


def _here(processes: int, module: str, arguments: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // processes))
    os.environ[LAUNCHER] = str(os.getpid())
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the stage's own sentence is enough
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any free port, so that two projects can train side by side
        run_id=f"{module}-{os.getpid()}",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", module, *arguments)
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode or 1
    except SignalException as ended:
        return 128 + ended.sigval
    return 0


def _there(hostfile: str, module: str, arguments: list[str]) -> int:
    if not Path(hostfile).is_file():
        raise PoseRftError(f"launch.hostfile {hostfile} does not exist, expected a line `HOST slots=GPUS` per machine.")
    return subprocess.run(hostfile_command(hostfile, module, arguments)).returncode


def hostfile_command(hostfile: str, module: str, arguments: list[str]) -> list[str]:
    """DeepSpeed's launcher for all machines of a hostfile."""
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", hostfile, "--quiet"]
    return [*runner, "--no_local_rank", "--module", module, *arguments]
