"""Concurrency limits of this host: how many stages run in parallel, on which cores, and how many use its GPUs."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

from flows.dvc_graph import family
from flows.dvc_stage import Log, Processes, StageFailed
from pose_rft.errors import PoseRftError
from pose_rft.io.lock import alone_in
from pose_rft.io.private import own_folder

GPU_FAMILIES = ("base_model", "pose_encoder", "sft", "retrieval", "rft", "evaluate")
WAIT = 5.0  # seconds between checks whether the flow was stopped


def side_by_side() -> int:
    """Returns how many stages one flow runs in parallel: `POSE_RFT_STAGES_AT_ONCE`, default 2."""
    return _count("POSE_RFT_STAGES_AT_ONCE", 2)


def gpu_slots() -> int:
    """Returns how many GPU stages this host runs at once: `POSE_RFT_GPU_SLOTS`, else 1 with an NVIDIA GPU; 0: no limit.

    The default is 1 because a training uses all GPUs of its host.
    """
    return _count("POSE_RFT_GPU_SLOTS", 1 if Path("/dev/nvidia0").exists() else 0)


def limit_name() -> str:
    return f"gpu-{socket.gethostname()}"


def wants_gpu(stage: str) -> bool:
    return family(stage) in GPU_FAMILIES


@contextmanager
def core_share() -> Iterator[list[int]]:
    """Reserves an equal share of this host's cores for one of the stages that run in parallel, in this or another flow.

    Two trainings with one core each are faster than two that compete for both cores with two processes each. Yields an
    empty list (all cores) if every share is taken, GPUs do the work, or the system cannot pin processes to cores.
    """
    everything = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") and not gpu_slots() else []
    parts = min(side_by_side(), len(everything))
    with ExitStack() as held:
        free = (part for part in range(parts) if _held(held, f"cores-{part + 1}-of-{parts}"))
        part = next(free, None)
        yield [] if part is None else everything[part::parts]


def _held(held: ExitStack, name: str) -> bool:
    """Locks `name` for as long as `held` is open; returns False if another process or thread of this user has it."""
    try:
        folder = own_folder(f"{socket.gethostname()}-{name}", lasting=False)
        held.enter_context(alone_in(folder))
    except PoseRftError:
        return False
    return True


@contextmanager
def slot(stage: str, log: Log, processes: Processes) -> Iterator[None]:
    """Holds one of the host's GPU slots, across all flows of the server, for a stage that needs one.

    Raises:
        StageFailed: the flow was stopped while the stage waited.
    """
    slots = gpu_slots()
    if not wants_gpu(stage) or slots == 0:
        yield
        return
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # a parallel stage was faster
        client.upsert_global_concurrency_limit_by_name(limit_name(), slots)
    with ExitStack() as held:
        told = False
        while True:
            try:
                # A server that is unreachable when the lease is due must not end a training.
                held.enter_context(
                    concurrency(limit_name(), timeout_seconds=WAIT, strict=True, raise_on_lease_renewal_failure=False)
                )
                break
            except TimeoutError:
                if processes.stopped:
                    raise StageFailed(f"Stage {stage} was stopped while it waited for a GPU.") from None
                if not told:
                    log(f"waits for one of {slots} GPU slot(s) of this host ({limit_name()})")
                    told = True
        yield


def _count(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise PoseRftError(f"{name} is {text!r}, expected a number of stages such as 1.")
    return int(text)
