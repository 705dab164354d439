"""Runs stages of the DVC graph as Prefect tasks: independent ones in parallel, unchanged ones shown as Cached.

DVC decides what is up to date; Prefect decides when and where. A stage is skipped without starting DVC when DVC's
status lists nothing for it and every stage that it depends on was skipped as well.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectFuture
from prefect.runtime import task_run
from prefect.states import Completed, State
from prefect.tasks import Task

from flows import artifacts, dispatch, hosts
from flows.dvc_graph import StageGraph, family, out_of_date, plain, read_graph
from flows.dvc_stage import Log, Processes, StageFailed, StageRun, run_stage

HERE = Path()  # the working directory: an agent runs this code in a clone
MESSAGES = {"Cached": "unchanged (dvc.lock)", "Restored": "restored from DVC's run cache", "Completed": "ran"}
HOUR = 3600.0
BUSY_WAIT = 3.0  # seconds between attempts while another run holds the stage's files
BUSY_LIMIT = 72 * HOUR  # seconds of waiting in total, if `hours` sets no limit


class StagesFailed(Exception):
    """At least one stage failed; the text says which and why."""


class Work:
    """State that the stages of one flow share.

    `hours` limits families of stages (`{"rft": 20}`); `agents` names a deployment, such as `stage/gpu`, that runs the
    stages that need a GPU (None: they run here); `due` are the stages that run here now or next.
    """

    def __init__(self, root: Path, hours: Mapping[str, float], agents: str | None) -> None:
        self.root, self.agents, self.processes = root, agents, Processes()
        self.due: set[str] = set()
        self._hours = hours

    def limit(self, name: str) -> float | None:
        """Returns the stage's time limit in seconds, None if it has none."""
        hours = self._hours.get(plain(name), self._hours.get(family(name)))
        return None if hours is None else hours * HOUR

    def deployment(self, name: str) -> str | None:
        """Returns the deployment whose agents run the stage; None if it runs here."""
        return self.agents if hosts.wants_gpu(name) else None


def was_killed(task: "Task", run: TaskRun, state: State) -> bool:
    """Lets Prefect retry a stage only if the system killed it, for example out of memory; never after an error."""
    error = state.data
    return isinstance(error, StageFailed) and error.cause == "killed"


def task_run_name() -> str:
    return plain(task_run.parameters["name"])


@task(
    name="stage",
    task_run_name=task_run_name,
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=was_killed,
)
def stage(name: str, changed: bool, upstream: list[StageRun], work: Work) -> State:
    """Runs one stage; Prefect draws the arrows of its graph from `upstream`."""
    log = get_run_logger().info
    if not changed:
        run = StageRun(name, "Cached", 0.0)
    elif deployment := work.deployment(name):
        run = dispatch.on_agent(name, work.root, deployment, work.limit(name), log, work.processes)
    else:
        run = run_here(name, work, log)
    return Completed(name=run.outcome, message=f"{MESSAGES[run.outcome]}, {run.seconds:.1f} s", data=run)


def run_here(name: str, work: Work, log: Log) -> StageRun:
    """Runs the stage on this host, with all cores if it is the only stage, else with a share of them."""
    try:
        with hosts.slot(name, log, work.processes), ExitStack() as held:
            alone = work.due <= {name}
            cores = [] if alone else held.enter_context(hosts.core_share())
            return when_free(name, work.root, log, work.processes, work.limit(name), cores=cores)
    finally:
        work.due.discard(name)


def when_free(
    name: str,
    root: Path,
    log: Log,
    processes: Processes,
    limit: float | None,
    options: tuple[str, ...] = (),
    cores: Sequence[int] = (),
) -> StageRun:
    """Calls `run_stage`; while another run holds the stage's files, waits: it may be producing the same result.

    Waits as long as the stage may take (`limit`, else BUSY_LIMIT); by then the other run has most likely been stopped.
    """
    told, give_up = False, time.monotonic() + (limit or BUSY_LIMIT)
    while True:
        try:
            return run_stage(
                name,
                root,
                log,
                processes=processes,
                limit=limit,
                on_progress=artifacts.progress(name),
                options=options,
                cores=cores,
            )
        except StageFailed as failure:
            if failure.cause != "busy" or processes.stopped or time.monotonic() > give_up:
                raise
            if not told:
                log(f"waits: {failure}")
                told = True
            time.sleep(BUSY_WAIT)


def run_families(
    *families: str,
    root: Path = HERE,
    hours: Mapping[str, float] | None = None,
    agents: str | None = None,
    label: str = "pipeline",
) -> list[StageRun]:
    """Runs all stages of these families (none given: the whole graph) in graph order; call it inside a flow.

    Raises:
        StagesFailed: at least one stage failed; stages that depend on it did not run.
        PoseRftError: DVC cannot read the pipeline, or a family is unknown.
    """
    root = root.resolve()
    graph = read_graph(root)
    names = graph.of_families(*families) if families else list(graph.upstream)
    first = [name for name in names if name in graph.first]
    rest = [name for name in names if name not in graph.first]
    work = Work(root, hours or {}, agents)
    rows: list[artifacts.Row] = []
    try:
        runs = _run(graph, first, out_of_date(root, first), {}, work, rows)
        # Only now is it known whether raw files changed: `inventory` has just checked.
        unchanged = {run.name: StageRun(run.name, "Cached", run.seconds) for run in runs}
        return runs + _run(graph, rest, out_of_date(root, rest), unchanged, work, rows)
    except StagesFailed:
        raise
    except BaseException:
        work.processes.stop()
        raise
    finally:
        artifacts.stage_table(label, rows)
        if not work.processes.stopped:
            artifacts.data_statistics(root)
            artifacts.changes_since_commit(root)
            artifacts.report_link(root)


def _run(
    graph: StageGraph,
    names: Iterable[str],
    suspects: set[str],
    known: dict[str, StageRun],
    work: Work,
    rows: list[artifacts.Row],
) -> list[StageRun]:
    futures = _submit(graph, names, suspects, known, work)
    runs, failures = [], []
    for name, future in futures.items():
        future.wait()
        state = future.state
        if state.is_completed():
            run: StageRun = future.result()
            runs.append(run)
            rows.append({"stage": plain(name), "state": run.outcome, "seconds": round(run.seconds, 1), "why": ""})
            continue
        error = state.data if isinstance(state.data, BaseException) else None
        why = str(error or state.message or "")
        if state.is_pending():  # Prefect's state of a task whose input failed
            rows.append({"stage": plain(name), "state": "Not run", "seconds": None, "why": "a stage before it failed"})
        else:
            failures.append(why)
            rows.append({"stage": plain(name), "state": state.name, "seconds": None, "why": why})
    if failures:
        skipped = len(futures) - len(runs) - len(failures)
        raise StagesFailed("\n".join(failures) + (f"\n{skipped} stage(s) after that did not run." if skipped else ""))
    return runs


def _submit(
    graph: StageGraph, names: Iterable[str], suspects: set[str], known: dict[str, StageRun], work: Work
) -> dict[str, PrefectFuture[StageRun]]:
    """Submits each stage only when its upstream stages have ended; a stage that waits would occupy a thread."""
    futures: dict[str, PrefectFuture[StageRun]] = {}
    waiting = list(names)
    pending = set(waiting)
    ended: SimpleQueue[str] = SimpleQueue()
    while waiting:
        ready = {name: graph.upstream[name] for name in waiting if not pending.intersection(graph.upstream[name])}
        changed = {name for name, upstream in ready.items() if name in suspects or _ran(upstream, futures, known)}
        work.due |= {name for name in changed if not work.deployment(name)}
        for name, upstream in ready.items():
            before = [futures.get(up) or known[up] for up in upstream if up in futures or up in known]
            futures[name] = stage.submit(name, name in changed, before, work)
            futures[name].add_done_callback(lambda _, name=name: ended.put(name))
        waiting = [name for name in waiting if name not in ready]
        if waiting:
            over = ended.get()
            futures[over].wait()  # stores its final state, which would otherwise be fetched from the server
            pending.discard(over)
            work.due.discard(over)  # also if it never started because an upstream stage failed
    return futures


def _ran(names: Iterable[str], futures: Mapping[str, PrefectFuture[StageRun]], known: Mapping[str, StageRun]) -> bool:
    """Returns whether any of these stages produced new outs; a failed stage did not."""
    runs = [known[name] for name in names if name in known]
    runs += [futures[name].result() for name in names if name in futures and futures[name].state.is_completed()]
    return any(run.outcome != "Cached" for run in runs)
