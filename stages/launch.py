"""`launch`: SFT and RFT over several processes, from the same `python -m stages.NAME` that one process takes.

One process per GPU. On one machine they are torchrun's, on several those of DeepSpeed's launcher, which reaches the
machines of its hostfile by ssh; each of them must see the project under the same path and have the same environment.
A stage that a launcher started by hand (`torchrun --nproc-per-node 8 -m stages.rft --variant hygrpo`) starts nothing.
The number of processes changes no result but by rounding, so DVC does not follow this section.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

from pydantic import model_validator

from pose_rft.errors import PoseRftError
from pose_rft.params import Count, Section, load


class LaunchParams(Section):
    """`launch`: processes on this machine, or a hostfile with a line `HOST slots=GPUS` for each machine."""

    processes: Count = 1
    hostfile: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "LaunchParams":
        if self.hostfile is not None and self.processes > 1:
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
    params = load("launch", LaunchParams)
    if "RANK" in os.environ or (params.processes == 1 and params.hostfile is None):
        return False
    if params.hostfile is None:
        status = _here(params.processes, module, arguments)
    else:
        status = _there(params.hostfile, module, arguments)
    if status:
        raise SystemExit(status)
    return True


def _here(processes: int, module: str, arguments: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // processes))
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
