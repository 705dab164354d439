"""The whole pipeline as Prefect flows: `python -m flows.pipeline [convert|train|evaluate]`.

The same graph as `dvc repro`, stage by stage, with parallelism, logs and states in Prefect's UI. `pipeline` chains
`convert` (releases to checked shards), `train` (SFT, retrieval, RFT) and `evaluate` (tables and report).
"""

import os
import sys
from pathlib import Path

# Without a server of the user's, Prefect starts a private one; nothing of that leaves the machine.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dvc_stage import StageRun
from flows.graph_run import ROOT, run_families

RUNNER = ThreadPoolTaskRunner(max_workers=2)  # type: ignore[var-annotated]


@flow(name="convert", task_runner=RUNNER)
def convert(root: Path = ROOT) -> list[StageRun]:
    """Raw releases to shards, checked."""
    return run_families("sample", "inventory", "convert", "validate", root=root)


@flow(name="train", task_runner=RUNNER)
def train(root: Path = ROOT) -> list[StageRun]:
    """Base model and encoder, SFT, the retrieval models, reinforcement fine-tuning."""
    return run_families("base_model", "pose_encoder", "sft", "retrieval", "rft", root=root)


@flow(name="evaluate", task_runner=RUNNER)
def evaluate(root: Path = ROOT) -> list[StageRun]:
    """Every run's evaluation, then tables and report."""
    return run_families("evaluate", "report", root=root)


@flow(name="pipeline", task_runner=RUNNER)
def pipeline(root: Path = ROOT) -> list[StageRun]:
    """Everything, in order."""
    return [*convert(root), *train(root), *evaluate(root)]


FLOWS = {"pipeline": pipeline, "convert": convert, "train": train, "evaluate": evaluate}


def main(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "pipeline"
    if name not in FLOWS:
        sys.exit(f"error: no flow is called {name!r}; choose one of {', '.join(FLOWS)}.")
    for run in FLOWS[name]():  # type: ignore[operator]
        print(f"{run.outcome:>9}  {run.name}  ({run.seconds:.1f} s)")


if __name__ == "__main__":
    main(sys.argv[1:])
