"""The stage graph as DVC sees it, read in-process: which stages exist, what each depends on, which are out of date."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.stage import Stage
from dvc.stage.cache import RunCacheNotFoundError
from dvc_data.hashfile.hash_info import HashInfo

from pose_rft.errors import PoseRftError

FOUND, NOT_FOUND = 0, 3  # exit statuses when this file runs as a command


@dataclass(frozen=True)
class StageGraph:
    """The stages, in topological order as keys of `upstream`: `upstream[name]` are those whose outs `name` reads.

    A name is what `dvc repro` accepts at the root: `rft@hygrpo`, but `stages/dvc.yaml:inventory` for a folder with a
    dvc.yaml of its own.

    `first` are the stages that inspect the outside world on every run (`always_changed`), with their dependencies:
    which later stages are out of date is known only once these have run.
    """

    upstream: dict[str, tuple[str, ...]]
    first: frozenset[str] = frozenset()

    def of_families(self, *families: str) -> list[str]:
        """Returns the stages of these families in graph order: `convert` gives `convert@coco`, `convert@h36m`, …

        Raises:
            PoseRftError: a family has no stage.
        """
        known = {family(name) for name in self.upstream}
        if unknown := sorted(set(families) - known):
            raise PoseRftError(f"dvc.yaml has no stage {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        return [name for name in self.upstream if family(name) in families]

    def before(self, names: frozenset[str] | set[str]) -> set[str]:
        """Returns `names` and all stages that they depend on."""
        found: set[str] = set()
        todo = list(names)
        while todo:
            if (name := todo.pop()) not in found:
                found.add(name)
                todo += self.upstream[name]
        return found


def plain(name: str) -> str:
    """Returns the stage's name without the path of its dvc.yaml, as shown to users."""
    return name.rpartition(":")[2]


def family(name: str) -> str:
    """Returns the part before `@`: `convert` for `convert@coco`."""
    return plain(name).partition("@")[0]


def read_graph(root: Path) -> StageGraph:
    """Reads the graph of dvc.yaml under `root`.

    Raises:
        PoseRftError: DVC cannot read dvc.yaml or params.yaml.
    """
    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            names = {stage: _name(stage, repo) for stage in graph.nodes}
            waits_for = {names[stage]: sorted(names[up] for up in graph.successors(stage)) for stage in names}
            always = {names[stage] for stage in names if stage.always_changed}
    except DvcException as error:
        text = " ".join(str(error.__cause__ or error).split())
        raise PoseRftError(f"DVC cannot read the pipeline in {root} ({text}); fix params.yaml or dvc.yaml.") from None
    ordered: dict[str, tuple[str, ...]] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            for upstream in waits_for[name]:
                visit(upstream)
            ordered[name] = tuple(waits_for[name])

    for name in sorted(waits_for):
        visit(name)
    graph_only = StageGraph(ordered)
    return StageGraph(ordered, frozenset(graph_only.before(always)))


def out_of_date(root: Path, names: list[str]) -> set[str]:
    """Returns the stages among `names` that DVC would not skip in their current state.

    If another run holds DVC's lock, no stage can be ruled out, so all are returned.
    """
    try:
        with Repo(str(root)) as repo, lock_repo(repo):
            stages = {_name(stage, repo): stage for stage in repo.index.stages}
            return {name for name in names if stages[name].status()}
    except LockError:
        return set(names)


def run_key(root: Path, name: str) -> str:
    """Returns a hash of everything that a run of the stage depends on: command, params and the content of its deps.

    Raises:
        PoseRftError: the stage does not exist, or a dep does not exist yet.
    """
    try:
        with Repo(str(root), _wait_for_lock=True) as repo, lock_repo(repo):
            stage = _stage(repo, name)
            stage.save_deps()
            deps = sorted((str(dep.def_path), dep.hash_info.value) for dep in stage.deps)
    except DvcException as error:
        raise PoseRftError(f"Stage {name} cannot be sent to an agent ({error}); its inputs must exist.") from None
    return hashlib.sha256(json.dumps([name, stage.cmd, deps], sort_keys=True, default=str).encode()).hexdigest()[:32]


def restorable(root: Path, name: str) -> bool:
    """Returns whether DVC can restore the outs of exactly this run from its cache; with a remote, fetches them first.

    Runs in a subprocess: DVC restores relative to the working directory, which threads share.

    Raises:
        PoseRftError: the check failed.
    """
    command = [sys.executable, str(Path(__file__).resolve()), name]
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")])
    asked = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    if asked.returncode not in (FOUND, NOT_FOUND):
        raise PoseRftError(f"DVC could not look for a result of {name} in its cache ({asked.stderr.strip()[-500:]}).")
    return asked.returncode == FOUND


def _restorable_here(name: str) -> bool:
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
        remote = bool(repo.config.get("core", {}).get("remote"))
        stage = _stage(repo, name)
        stage.save_deps()
        for out in stage.outs:
            out.hash_info = HashInfo()  # hashes in dvc.lock may come from another run
        try:
            if remote:
                repo.stage_cache.pull(None)
            repo.stage_cache.restore(stage, pull=remote, dry=not remote)
        except RunCacheNotFoundError:
            return False
    return True


def has_remote(root: Path) -> bool:
    with Repo(str(root)) as repo:
        return bool(repo.config.get("core", {}).get("remote"))


def _name(stage: Stage, repo: Repo) -> str:
    file = Path(stage.path).relative_to(repo.root_dir).as_posix()
    return str(stage.name) if file == "dvc.yaml" else f"{file}:{stage.name}"


def _stage(repo: Repo, name: str) -> Stage:
    for stage in repo.index.stages:
        if _name(stage, repo) == name:
            return stage
    raise PoseRftError(f"dvc.yaml has no stage {name}; `dvc stage list` names them.")


if __name__ == "__main__":
    sys.exit(FOUND if _restorable_here(sys.argv[1]) else NOT_FOUND)
