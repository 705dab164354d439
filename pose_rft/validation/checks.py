"""Validation checks (a measured value, the expected one, and a verdict) and their output as metrics and reports."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["ok", "note", "failed"]
LARGEST = 1e9  # replaces infinity, which JSON lacks
COLUMNS = ("split", "check", "value", "expected", "verdict", "remark")


@dataclass(frozen=True)
class Check:
    """One check. `split` may name two splits; verdict `note`: worth knowing but no error, normal in real releases."""

    dataset: str
    split: str
    name: str
    value: float
    expected: str
    verdict: Verdict
    remark: str = ""


def verdict(good: bool) -> Verdict:
    """Returns `ok` or `failed`."""
    return "ok" if good else "failed"


def metrics(checks: Sequence[Check]) -> dict[str, Any]:
    """DVC metrics: the number of failed checks and of notes, and every value under `validate.DATASET.SPLIT`."""
    values: dict[str, Any] = {
        "failed": sum(check.verdict == "failed" for check in checks),
        "notes": sum(check.verdict == "note" for check in checks),
    }
    for check in checks:
        name = check.name.split(" (")[0].replace(" ", "_")
        values.setdefault(check.dataset, {}).setdefault(check.split, {})[name] = round(min(check.value, LARGEST), 6)
    return {"validate": values}


def as_rows(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Returns the checks as JSON-compatible rows, for the report."""
    return [asdict(check) | {"value": _number(check.value)} for check in checks]


def tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one table per data set from the rows of `as_rows`: {title, header, rows of cells}."""
    return [
        {
            "title": dataset,
            "header": COLUMNS,
            "rows": [
                [row[name] for name in ("split", "name", "value", "expected", "verdict", "remark")]
                for row in rows
                if row["dataset"] == dataset
            ],
        }
        for dataset in dict.fromkeys(row["dataset"] for row in rows)
    ]


def report(checks: Sequence[Check]) -> str:
    """Returns a Markdown page with one table per data set."""
    failed = [check for check in checks if check.verdict == "failed"]
    lines = ["# Validation of the shards", "", f"{len(checks)} checks, {len(failed)} failed.", ""]
    for table in tables(as_rows(checks)):
        lines += [f"## {table['title']}", "", f"| {' | '.join(table['header'])} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table["rows"]]
        lines.append("")
    return "\n".join(lines)


def failure(checks: Sequence[Check], where: Path) -> str | None:
    """Returns one sentence about the failed checks, or None if there are none."""
    failed = [check for check in checks if check.verdict == "failed"]
    if not failed:
        return None
    first = failed[0]
    remark = f": {first.remark}" if first.remark else ""
    return (
        f"{len(failed)} of {len(checks)} checks of the shards failed; the first is {first.dataset} {first.split}, "
        f"{first.name} = {first.value:.4g}, expected {first.expected}{remark} (all of them in {where})."
    )


def _number(value: float) -> str:
    return f"{int(value)}" if value == value and abs(value) < 1e15 and value == int(value) else f"{value:.4g}"
