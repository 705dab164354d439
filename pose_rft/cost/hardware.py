"""Peak performance of a device, as a reference for the performance achieved.

GPU figures are from the vendors' data sheets: dense bfloat16 (half of the "with sparsity" figure), SXM versions (L40S:
PCIe). No such figure for a CPU holds under every resource limit and shared load, so its peak is measured: the fastest
of a few matrix products.
"""

import time
from functools import cache
from typing import NamedTuple

import torch

GIB = 2**30


class Gpu(NamedTuple):
    """flops: dense bfloat16 operations per second. bandwidth: bytes per second. memory: bytes."""

    name: str
    flops: float
    bandwidth: float
    memory: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("B200", 2.25e15, 7.7e12, 180e9),
        Gpu("H200", 989e12, 4.8e12, 141e9),
        Gpu("H100", 989e12, 3.35e12, 80e9),
        Gpu("A100", 312e12, 2.04e12, 80e9),
        Gpu("L40S", 362e12, 0.864e12, 48e9),
    )
}

SIDE = 1024  # of the matrices that are multiplied to time a CPU
ROUNDS = 5


def peak_flops(device: torch.device) -> float:
    """Returns the peak operations per second of `device`: from its data sheet if known, else measured (0.1 s, once)."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    known = next((gpu.flops for gpu in GPUS.values() if gpu.name in name), None)
    return known if known is not None else _measured(str(device))


@cache
def _measured(device: str) -> float:
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    side = SIDE * (8 if device.startswith("cuda") else 1)
    factor = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(ROUNDS):
        _wait(device)
        began = time.perf_counter()
        torch.mm(factor, factor)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
