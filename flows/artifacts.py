"""A flow's artifacts in Prefect's UI: a table of stages, changes since the last commit, the data, the report.

Artifacts are informational: one that cannot be created (server briefly unreachable, no git) never fails a run.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows import metrics_diff
from pose_rft.errors import PoseRftError

Row = dict[str, Any]


def key(*parts: str) -> str:
    """An artifact's key: lower-case letters, digits and dashes, as Prefect requires."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


@contextmanager
def _unimportant(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # any failure of the API, git or a half-written file
        get_run_logger().warning("No artifact for %s (%s)", what, error)


def stage_table(name: str, rows: list[Row]) -> None:
    with _unimportant("stages"):
        create_table_artifact(key=key("stages", name), table=rows, description="What DVC did for each stage.")


def changes_since_commit(root: Path) -> None:
    """Publishes how params and metrics of the working tree differ from the last git commit, as markdown."""
    with _unimportant("changes"):
        try:
            params, metrics = metrics_diff.compare(root, "HEAD")
        except PoseRftError as error:  # no git, no commit, a half-written file
            text = str(error)
        else:
            text = "\n".join(
                (
                    metrics_diff.markdown("Choices against the last commit", params),
                    metrics_diff.markdown("Numbers against the last commit", metrics),
                    metrics_diff.another_machine(root, "HEAD") or "",
                )
            )
        create_markdown_artifact(key="changes", markdown=text, description="What moved since the last commit.")


def data_statistics(root: Path) -> None:
    """Publishes a table of the data sets, with rows from results/convert/NAME.json."""
    with _unimportant("data"):
        rows = [row for file in sorted((root / "results/convert").glob("*.json")) for row in data_rows(file)]
        if rows:
            create_table_artifact(key="data", table=rows, description="The converted data sets.")


def data_rows(file: Path) -> Iterator[Row]:
    """Yields the rows of one data set's metrics: samples, shards, defects."""
    for name, numbers in json.loads(file.read_text()).get("data", {}).items():
        yield {"data set": name} | {k: numbers.get(k) for k in ("samples", "shards", "defects")}


def report_link(root: Path) -> None:
    page = root / "report/index.html"
    with _unimportant("the report"):
        if page.is_file():
            create_link_artifact(key="report", link=page.resolve().as_uri(), link_text=str(page.resolve()))


def progress(name: str) -> Callable[[float], None]:
    """Returns a function that shows a stage's progress in per cent; its first call creates the artifact."""
    state: dict[str, Any] = {}

    def show(per_cent: float) -> None:
        with _unimportant("progress"):
            if "id" not in state:
                state["id"] = create_progress_artifact(
                    progress=per_cent, key=key("progress", name), description=f"How far {name} is."
                )
            elif per_cent - state["shown"] >= 1.0 or per_cent >= 100.0:
                update_progress_artifact(artifact_id=state["id"], progress=per_cent)
            else:
                return
            state["shown"] = per_cent

    return show
