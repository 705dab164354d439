"""A check: one thing that was looked at, its value, what it should be, and how it ended; and how checks are told."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["ok", "note", "failed"]
LARGEST = 1e9  # stands for infinity, which JSON has not
COLUMNS = ("split", "check", "value", "expected", "verdict", "remark")


@dataclass(frozen=True)
class Check:
    """`split` may name two; `note`: worth knowing, no error, as real releases have such things."""

    dataset: str
    split: str
    name: str
    value: float
    expected: str
    verdict: Verdict
    remark: str = ""


def verdict(good: bool) -> Verdict:
    """A verdict from whether something holds."""
    return "ok" if good else "failed"


def metrics(checks: Sequence[Check]) -> dict[str, Any]:
    """Numbers for DVC: how many checks failed, and every value below `validate.DATASET.SPLIT`."""
    values: dict[str, Any] = {
        "failed": sum(check.verdict == "failed" for check in checks),
        "notes": sum(check.verdict == "note" for check in checks),
    }
    for check in checks:
        name = check.name.split(" (")[0].replace(" ", "_")
        values.setdefault(check.dataset, {}).setdefault(check.split, {})[name] = round(min(check.value, LARGEST), 6)
    return {"validate": values}


def as_rows(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The checks as plain JSON, for the report."""
    return [asdict(check) | {"value": _number(check.value)} for check in checks]


def tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table per data set from what `as_rows` made: {title, header, rows of cells}."""
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
    """A Markdown page with one table per data set."""
    failed = [check for check in checks if check.verdict == "failed"]
    lines = ["# Validation of the shards", "", f"{len(checks)} checks, {len(failed)} failed.", ""]
    for table in tables(as_rows(checks)):
        lines += [f"## {table['title']}", "", f"| {' | '.join(table['header'])} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table["rows"]]
        lines.append("")
    return "\n".join(lines)


def failure(checks: Sequence[Check], where: Path) -> str | None:
    """One sentence about what failed, None if nothing did."""
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
