"""`stage/gpu`: runs one stage in an agent's own clone, for a pipeline that runs elsewhere (`dispatch.py`).

The clone gets the sender's params.yaml and dvc.lock; the stage's inputs come from the shared cache (or the default
remote), and its result goes back the same way. Inputs are checked out before DVC is asked: with `--allow-missing`, DVC
would treat a stage with missing inputs as unchanged, whatever dvc.lock now says about them.
"""

import re
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.states import Completed, State

from flows import hosts
from flows.commands import dvc, git
from flows.dvc_graph import has_remote, read_graph
from flows.dvc_stage import Log, Processes
from flows.graph_run import HERE, MESSAGES, when_free
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@flow(name="stage", persist_result=False)
def stage(
    name: str,
    params: str | None = None,
    lock: str | None = None,
    commit: str | None = None,
    limit: float | None = None,
    root: Path = HERE,
) -> State:
    """Runs one stage.

    Args:
        name: as in `dvc stage list`, such as `rft@hygrpo`.
        params, lock: contents of params.yaml and dvc.lock; None keeps the clone's.
        commit: the sender's commit; the clone checks it out, fetching it if necessary.
        limit: time limit in seconds.
    """
    root = root.resolve()
    log = get_run_logger().info
    if commit:
        _checkout(root, commit)
    if params is not None:
        atomic.write_text(root / "params.yaml", params)
    if lock:
        atomic.write_text(root / "dvc.lock", lock)
    processes, remote = Processes(), has_remote(root)
    try:
        with hosts.slot(name, log, processes):
            _check_out_inputs(root, name, remote, log)
            run = when_free(name, root, log, processes, limit, ("--pull",) if remote else ())
        if remote:
            _push(root, name, log)
    except BaseException:
        processes.stop()
        raise
    return Completed(name=run.outcome, message=f"{MESSAGES[run.outcome]}, {run.seconds:.1f} s")


def _checkout(root: Path, commit: str) -> None:
    """Checks out the sender's commit in the agent's clone, which `git_clone` may have made shallow: fetches it by hash.

    Raises:
        PoseRftError: `commit` is not a full commit hash (git would take a leading `-` for an option), or the commit
            cannot be found.
    """
    if not COMMIT.fullmatch(commit):
        raise PoseRftError(f"{commit!r} is no commit's name, expected the 40 or 64 digits of `git rev-parse HEAD`.")
    here = git(root, "rev-parse", "HEAD")
    if here.returncode == 0 and here.stdout.strip() == commit:
        return
    if git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        git(root, "fetch", "--quiet", "origin", commit)
    moved = git(root, "checkout", "--quiet", "--force", "--detach", commit)
    if moved.returncode != 0:
        raise PoseRftError(f"This agent's clone has no commit {commit[:12]}; push it to the repository agents clone.")


def _check_out_inputs(root: Path, name: str, remote: bool, log: Log) -> None:
    """Checks out the outs of the stages before this one. Missing ones are left to `dvc repro`, which reports them."""
    graph = read_graph(root)
    if name not in graph.upstream:
        raise PoseRftError(f"dvc.yaml has no stage {name}; `dvc stage list` names them.")
    for verb in (("fetch",) if remote else ()) + ("checkout",):
        done = dvc(root, verb, *graph.upstream[name]) if graph.upstream[name] else None
        if done and done.returncode != 0:
            log(f"dvc {verb}: {' '.join(done.stderr.split())}")


def _push(root: Path, name: str, log: Log) -> None:
    pushed = dvc(root, "push", "--run-cache", name)
    log(f"dvc push: {' '.join(pushed.stdout.split())}")
    if pushed.returncode != 0:
        raise PoseRftError(f"The result of {name} could not be pushed to the remote ({pushed.stderr.strip()}).")
