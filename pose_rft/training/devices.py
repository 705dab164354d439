"""What the device of a training has used."""

from pathlib import Path

import torch

GIB = 2**30


def peak_memory(device: torch.device) -> float:
    """Largest memory so far, bytes: tensors of this process on a GPU, the whole process (VmHWM) on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    return 1024.0 * int(status.read_text().split("VmHWM:")[1].split()[0])
