"""The stage graph as DVC sees it, read in-process: which stages exist, what each waits for, which are out of date."""

from dataclasses import dataclass
from pathlib import Path

from dvc.lock import LockError
from dvc.repo import Repo, lock_repo


@dataclass(frozen=True)
class StageGraph:
    """`upstream[name]` are the stages whose outs `name` takes; names are in an order that respects that."""

    upstream: dict[str, tuple[str, ...]]

    def family(self, *families: str) -> list[str]:
        """Stages of these families in graph order: `convert` gives `convert@coco`, `convert@h36m`, …"""
        return [name for name in self.upstream if name.partition("@")[0] in families]


def read_graph(root: Path) -> StageGraph:
    """The graph of dvc.yaml under `root`."""
    with Repo(str(root)) as repo:
        graph = repo.index.graph
        waits_for = {stage.name: sorted(up.name for up in graph.successors(stage)) for stage in graph.nodes}
    ordered: dict[str, tuple[str, ...]] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            for upstream in waits_for[name]:
                visit(upstream)
            ordered[name] = tuple(waits_for[name])

    for name in sorted(waits_for):
        visit(name)
    return StageGraph(ordered)


def out_of_date(root: Path, names: list[str]) -> set[str]:
    """The stages among `names` that DVC would not skip as they stand.

    Where another run holds DVC's lock nothing can be ruled out, so all of them are returned.
    """
    try:
        with Repo(str(root)) as repo, lock_repo(repo):
            return {stage.name for stage in repo.index.stages if stage.name in names and stage.status()}
    except LockError:
        return set(names)
