"""The report's training curves as one CSV per run, for `dvc plots show` and `dvc plots diff`."""

import csv
import io
import json
from pathlib import Path

from pose_rft.io import atomic
from pose_rft.report.build import CURVES


def write_curves(results: Path, folder: Path) -> None:
    """Writes `folder/RUN.csv` with `step` and the run's columns of `CURVES`; leaves out steps without any of them.

    A run that logs none of them, or has no log, gets a file with only the header, so that no plot lacks its file.
    """
    columns: dict[str, list[str]] = {}
    for curves in CURVES.values():
        for run, column in curves.values():
            columns.setdefault(run, []).append(column)
    with atomic.folder(folder) as made:
        for run, names in columns.items():
            log = results / run / "log.jsonl"
            rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["step", *names])
            writer.writerows(
                [row["step"], *(row.get(name, "") for name in names)] for row in rows if any(n in row for n in names)
            )
            (made / f"{run}.csv").write_text(text.getvalue())
