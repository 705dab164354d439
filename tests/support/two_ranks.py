"""Runs a test module's work as two ranks on the CPU, as `launch` starts them.

Two gloo ranks may abort at the interpreter's own exit, after all is done, so a worker ends itself (`finish`) and is
judged by the files that it wrote before.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
START = "import sys; from stages.launch import run_here; sys.exit(run_here(2, [sys.executable, *sys.argv[1:]]))"
LAUNCHER = [sys.executable, "-c", START]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LAUNCHERS_OWN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def environment(*folders: Path) -> dict[str, str]:
    """This process's, without a process group that it may have made; `folders` can be imported from."""
    clean = {name: value for name, value in os.environ.items() if name not in LAUNCHERS_OWN}
    return clean | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *folders)))}


def run(module: Path, folder: Path, timeout: float = 3600) -> str:
    """Calls `module.work(folder)` in two processes; returns what they wrote to stderr."""
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts)
    worker = folder / "worker.py"
    worker.write_text(
        f"from pathlib import Path\nfrom {name} import work\nfrom tests.support.two_ranks import finish\n"
        f"work(Path({str(folder)!r}))\nfinish()\n"
    )
    paths = environment()
    done = subprocess.run(
        [*LAUNCHER, str(worker)], capture_output=True, text=True, cwd=ROOT, env=paths, timeout=timeout
    )
    return done.stderr


def finish() -> None:
    torch.distributed.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
