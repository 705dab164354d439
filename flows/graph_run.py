"""Runs stages of the DVC graph as Prefect tasks: independent ones in parallel, unchanged ones shown as Cached.

DVC decides what is up to date; Prefect decides when. A stage is skipped without starting DVC when DVC's status lists
nothing for it and every stage that it waits for was skipped as well.
"""

from collections.abc import Iterable
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.futures import PrefectFuture
from prefect.states import Completed, State

from flows.dvc_graph import StageGraph, out_of_date, read_graph
from flows.dvc_stage import StageRun, run_stage, stop_all

ROOT = Path(__file__).resolve().parent.parent
ALWAYS_RUN = ("sample", "inventory")


@task(name="stage", task_run_name="{name}", persist_result=False)
def stage(name: str, suspect: bool, upstream: list[StageRun], root: Path) -> State:
    """One stage; `suspect` says that DVC's status lists a change for it."""
    logger = get_run_logger()
    if not suspect and all(run.outcome == "Cached" for run in upstream):
        run = StageRun(name, "Cached", 0.0)
    else:
        run = run_stage(name, root, logger.info)
    messages = {"Cached": "unchanged (dvc.lock)", "Restored": "restored from DVC's run cache", "Completed": "ran"}
    return Completed(name=run.outcome, message=f"{messages[run.outcome]}, {run.seconds:.1f} s", data=run)


def run_families(*families: str, root: Path = ROOT) -> list[StageRun]:
    """All stages of these families of the pipeline in `root`, in graph order; call it inside a flow.

    Raises:
        RuntimeError: at least one stage failed; what waited for it did not run.
    """
    graph = read_graph(root)
    names = graph.family(*families)
    first = [name for name in names if name in ALWAYS_RUN]
    rest = [name for name in names if name not in ALWAYS_RUN]
    try:
        runs = _run(graph, first, set(first), {}, root)
        # Whether raw files changed is known only now: `inventory` has just looked.
        unchanged = {run.name: StageRun(run.name, "Cached", run.seconds) for run in runs}
        runs += _run(graph, rest, out_of_date(root, rest), unchanged, root)
    except BaseException:
        stop_all()
        raise
    create_table_artifact(
        key=f"stages-{'-'.join(families)}".replace("_", "-"),
        table=[{"stage": run.name, "outcome": run.outcome, "seconds": round(run.seconds, 1)} for run in runs],
        description="What DVC did for each stage.",
    )
    return runs


def _run(
    graph: StageGraph, names: Iterable[str], suspects: set[str], known: dict[str, StageRun], root: Path
) -> list[StageRun]:
    futures: dict[str, PrefectFuture[StageRun]] = {}
    for name in names:
        waits_for = [futures[up] for up in graph.upstream[name] if up in futures]
        done = [known[up] for up in graph.upstream[name] if up in known]
        futures[name] = stage.submit(name, name in suspects, [*waits_for, *done], root)
    failed = []
    for name, future in futures.items():
        future.wait()
        if not future.state.is_completed():
            failed.append(f"{name} ({future.state.name})")
    if failed:
        raise RuntimeError(f"Stages did not finish: {', '.join(failed)}; the first failure's log says why.")
    return [future.result() for future in futures.values()]
