"""The pipeline as Prefect flows: `python -m flows.pipeline [pipeline|convert|train|evaluate]`.

Runs the same graph as `dvc repro`, stage by stage, with parallelism, logs and states in Prefect's UI. `convert` turns
releases into checked shards, `train` runs SFT, retrieval and RFT, `evaluate` makes tables and report, `pipeline` all.
"""

import os
import sys
from pathlib import Path

# No telemetry, whether the server is the user's or a private one.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows import hosts
from flows.dvc_graph import plain
from flows.dvc_stage import StageRun
from flows.graph_run import HERE, StagesFailed, run_families
from flows.private_server import server
from pose_rft.errors import PoseRftError

RUNNER = ThreadPoolTaskRunner(max_workers=hosts.side_by_side())
Hours = dict[str, float]
INTERRUPTED = 130


@flow(name="pipeline", task_runner=RUNNER, persist_result=False)
def pipeline(root: Path = HERE, hours: Hours | None = None, agents: str | None = None) -> list[StageRun]:
    """Runs every stage that is out of date.

    Args:
        root: the project's folder.
        hours: time limits of stages or families, such as `{"rft": 20, "convert": 6}`.
        agents: a deployment, such as `stage/gpu`, that runs the stages that need a GPU; None runs them here.
    """
    return run_families(root=root, hours=hours, agents=agents, label="pipeline")


@flow(name="convert", task_runner=RUNNER, persist_result=False)
def convert(root: Path = HERE, hours: Hours | None = None) -> list[StageRun]:
    """Converts raw releases to shards and checks them."""
    families = ("sample", "inventory", "convert", "validate")
    return run_families(*families, root=root, hours=hours, label="convert")


@flow(name="train", task_runner=RUNNER, persist_result=False)
def train(root: Path = HERE, hours: Hours | None = None, agents: str | None = None) -> list[StageRun]:
    """Runs base model and encoder, SFT, the retrieval models and reinforcement fine-tuning."""
    families = ("base_model", "pose_encoder", "sft", "retrieval", "rft")
    return run_families(*families, root=root, hours=hours, agents=agents, label="train")


@flow(name="evaluate", task_runner=RUNNER, persist_result=False)
def evaluate(root: Path = HERE, hours: Hours | None = None, agents: str | None = None) -> list[StageRun]:
    """Evaluates every run, then makes tables and report."""
    return run_families("evaluate", "report", root=root, hours=hours, agents=agents, label="evaluate")


FLOWS = {"pipeline": pipeline, "convert": convert, "train": train, "evaluate": evaluate}


def main(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "pipeline"
    if name not in FLOWS:
        sys.exit(f"error: no flow is called {name!r}; choose one of {', '.join(FLOWS)}.")
    try:
        with server():
            runs = FLOWS[name]()
    except (StagesFailed, PoseRftError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    for run in runs:
        print(f"{run.outcome:>9}  {plain(run.name)}  ({run.seconds:.1f} s)")


if __name__ == "__main__":
    main(sys.argv[1:])
