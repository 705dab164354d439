"""`stage/gpu`: one stage on an agent, in the agent's own clone, for a pipeline that runs elsewhere (`dispatch.py`).

The clone gets the sender's params.yaml and dvc.lock; what the stage needs comes from the shared cache (or the default
remote), and its result goes back the same way. Inputs are checked out before DVC is asked: with `--allow-missing` it
would take a stage whose inputs are not there for unchanged, whatever dvc.lock says of them now.
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
        name: as `dvc stage list` has it, such as `rft@hygrpo`.
        params, lock: contents of params.yaml and dvc.lock; None leaves the clone's.
        commit: the sender's; the clone goes there where it has or can fetch it.
        limit: seconds.
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
    """The agent's clone at the sender's commit. `git_clone` may have made it shallow, hence the fetch by name.

    Raises:
        PoseRftError: it is no commit's full name (git would take one that starts with `-` for an option), or it is
            nowhere.
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
    """The outs of the stages before this one. What is nowhere is left to `dvc repro`, which says so."""
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
