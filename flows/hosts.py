"""How much may run at once on this host: stages side by side, on which cores, and stages that want its GPUs."""

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
WAIT = 5.0  # seconds between looks at whether the flow was stopped


def side_by_side() -> int:
    """Stages that one flow runs at once: `POSE_RFT_STAGES_AT_ONCE`, else 2."""
    return _count("POSE_RFT_STAGES_AT_ONCE", 2)


def gpu_slots() -> int:
    """GPU stages that this host runs at once: `POSE_RFT_GPU_SLOTS`, else 1 with an NVIDIA GPU; 0 is no limit.

    One, because a training takes all GPUs of its host through DeepSpeed's launcher.
    """
    return _count("POSE_RFT_GPU_SLOTS", 1 if Path("/dev/nvidia0").exists() else 0)


def limit_name() -> str:
    return f"gpu-{socket.gethostname()}"


def wants_gpu(stage: str) -> bool:
    return family(stage) in GPU_FAMILIES


@contextmanager
def core_share() -> Iterator[list[int]]:
    """Cores for one of the stages that run side by side, in this flow or in another: an equal part of this host's.

    Two trainings with a core each are faster than two with two processes each that push one another off both. Empty
    (all cores) where every part is taken, where GPUs do the work, and where the system pins nothing.
    """
    everything = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") and not gpu_slots() else []
    parts = min(side_by_side(), len(everything))
    with ExitStack() as held:
        free = (part for part in range(parts) if _held(held, f"cores-{part + 1}-of-{parts}"))
        part = next(free, None)
        yield [] if part is None else everything[part::parts]


def _held(held: ExitStack, name: str) -> bool:
    """Whether no other process or thread of this user has it; then it is `held`'s."""
    try:
        folder = own_folder(f"{socket.gethostname()}-{name}", lasting=False)
        held.enter_context(alone_in(folder))
    except PoseRftError:
        return False
    return True


@contextmanager
def slot(stage: str, log: Log, processes: Processes) -> Iterator[None]:
    """Holds one of the host's GPU slots, across all flows of the server, for a stage that wants one.

    Raises:
        StageFailed: the flow was stopped while the stage waited.
    """
    slots = gpu_slots()
    if not wants_gpu(stage) or slots == 0:
        yield
        return
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # a stage beside made it just now
        client.upsert_global_concurrency_limit_by_name(limit_name(), slots)
    with ExitStack() as held:
        told = False
        while True:
            try:
                # A server that is away when the lease is due must not end a training.
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
