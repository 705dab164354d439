"""Sends one stage to an agent and restores its result from DVC's cache, so a restarted parent never trains twice.

The flow run's key covers everything that the stage's result depends on (`run_key`): a parent that restarts after a
crash finds the run that it had started and waits for it. The agent's result reaches this machine through a shared
`cache.dir` or a remote. DVC itself then writes dvc.lock here; no lock files are merged.
"""

import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from flows.commands import dvc, git
from flows.dvc_graph import has_remote, read_graph, restorable, run_key
from flows.dvc_stage import Log, Processes, StageFailed, StageRun, run_stage

POLL = 2.0  # seconds


def on_agent(name: str, root: Path, deployment: str, limit: float | None, log: Log, processes: Processes) -> StageRun:
    """Runs a stage through `deployment` unless its result already exists, and fetches the result.

    Raises:
        StageFailed: the stage failed on its agent or was stopped, or its inputs or result could not be transferred.
    """
    began = time.monotonic()
    key = run_key(root, name)
    if restorable(root, name):
        return run_stage(name, root, log, processes=processes)
    send_inputs(root, name)
    for attempt in count():
        run = _begin(name, root, deployment, limit, f"{name}-{key}-{attempt}")
        old = run.state is not None and run.state.is_final()  # an earlier parent's run: used if restorable
        if not old:
            log(f"waits for flow run {run.name} of {deployment}")
            run = _wait(run, processes)
        assert run.state is not None
        if run.state.is_completed() and restorable(root, name):
            run_stage(name, root, log, processes=processes)
            outcome = run.state.name if run.state.name in ("Cached", "Restored") else "Completed"
            return StageRun(name, outcome, time.monotonic() - began)  # type: ignore[arg-type]
        if old:
            continue
        if run.state.is_completed():
            raise StageFailed(
                f"Stage {name} finished on its agent, but its result is not in the cache that this machine sees; give "
                "both one cache.dir or one default remote, and commit and push the code that runs here."
            )
        raise StageFailed(f"Stage {name} ended as {run.state.name} on its agent: {run.state.message}")
    raise AssertionError("unreachable")


def send_inputs(root: Path, name: str) -> None:
    """Pushes a stage's inputs to the default remote, if there is one: an agent may have a cache of its own.

    Includes outs of stages that are not part of the flow (`train` converts nothing).

    Raises:
        StageFailed: the push failed.
    """
    if not has_remote(root):
        return
    inputs = read_graph(root).upstream[name]
    if inputs and (pushed := dvc(root, "push", *inputs)).returncode != 0:
        raise StageFailed(f"The inputs of stage {name} could not be pushed to the remote ({pushed.stderr.strip()}).")


def _begin(name: str, root: Path, deployment: str, limit: float | None, key: str) -> FlowRun:
    parameters: dict[str, Any] = {
        "name": name,
        "params": (root / "params.yaml").read_text(),
        "lock": (root / "dvc.lock").read_text() if (root / "dvc.lock").is_file() else "",
        "commit": _commit(root),
        "limit": limit,
    }
    return run_deployment(
        deployment,
        parameters=parameters,
        idempotency_key=key,
        flow_run_name=f"{name} {key[-10:]}",
        timeout=0,
        as_subflow=False,
    )


def _wait(run: FlowRun, processes: Processes) -> FlowRun:
    """Waits until the run is in a final state and returns it. If this flow is stopped, cancels the run as well."""
    with get_client(sync_client=True) as client:
        while True:
            with suppress(httpx.TransportError):  # a server that is down does not stop the training on the agent
                run = client.read_flow_run(run.id)
            if run.state is not None and run.state.is_final():
                return run
            if processes.stopped:
                client.set_flow_run_state(run.id, Cancelling(message="the flow that sent it was stopped"), force=False)
                raise StageFailed(f"Stage {run.name} was stopped with the flow that sent it.")
            time.sleep(POLL)


def _commit(root: Path) -> str | None:
    shown = git(root, "rev-parse", "HEAD")
    return shown.stdout.strip() if shown.returncode == 0 else None
