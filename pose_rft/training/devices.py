"""Resource use of the training device."""

from pathlib import Path

import torch

GIB = 2**30


def peak_memory(device: torch.device) -> float:
    """Peak memory so far in bytes: this process's tensors on a GPU, the whole process (VmHWM) on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    return 1024.0 * int(status.read_text().split("VmHWM:")[1].split()[0])
