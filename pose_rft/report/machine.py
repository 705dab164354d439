"""What the numbers of a run depend on besides code, data and params: processor, threads, GPU, torch."""

import platform
from pathlib import Path

import torch


def facts() -> dict[str, str]:
    """Facts about this machine; runs with equal facts can be compared to the last digit."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"cpu": _cpu(), "threads": str(torch.get_num_threads()), "gpu": gpu, "torch": torch.__version__}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text(errors="replace").splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
