"""Prints the tables of metrics/summary.json to the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from pose_rft.errors import PoseRftError
from pose_rft.evaluation.distribution_tables import extra_tables
from pose_rft.evaluation.tables import Table, table1, table2, table3
from pose_rft.io import door
from pose_rft.io.json_files import read_json

STYLES = {"paper": "dim", "bound": "", "ours": "bold"}


def print_tables(summary: Path) -> None:
    """Prints the paper's three tables and our own, in a wide layout if the output is not a terminal.

    Raises:
        PoseRftError: the summary is missing, or the file is not a summary.
    """
    try:
        content = read_json(summary, dict)
        tables = [table1(content), table2(content), table2(content, "judge"), table3(content), *extra_tables(content)]
    except door.Missing:
        raise PoseRftError(f"{summary} does not exist; run `make run` (or `dvc repro`).") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PoseRftError(f"{summary} is not a summary of a run ({error!r}); run `dvc repro report`.") from None
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for table in tables:
        console.print(_rich(table))


def _rich(table: Table) -> RichTable:
    result = RichTable(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
    result.add_column("")
    for column in table.columns:
        result.add_column(column, justify="right")
    for row in table.rows:
        result.add_row(row.label, *row.cells, style=STYLES[row.kind])
    return result
