"""Shows what changed between two git revisions: values in params.yaml and metrics in metrics/summary.json, as tables.

`make diff REV=HEAD~1`, or `python -m flows.metrics_diff REV [OTHER]`; without OTHER, REV is compared with the working
tree. Both files are in git, so any clone can compare any two revisions without the data cache.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.commands import git
from pose_rft.errors import PoseRftError, visible

SUMMARY, PARAMS = Path("metrics/summary.json"), Path("params.yaml")
MACHINE = "machine"  # key of the summary: the machine that produced its metrics (report/machine.py)
LOWER_IS_BETTER = ("mpjpe", "defects", "energy_score", "nll_per_number", "fid")
HIGHER_IS_BETTER = ("recall", "heldout_reward", "heldout_gain", "posecodes")
REFERENCES = ("chance", "ground_truth", "mean_pose", "ci95_low", "ci95_high")  # baselines and confidence bounds


@dataclass(frozen=True)
class Change:
    """One value that differs; None if a revision lacks it."""

    name: str
    old: Any
    new: Any

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or empty if neither applies."""
        parts = self.name.split(".")
        if not (_number(self.old) and _number(self.new)) or any(part in REFERENCES for part in parts):
            return ""
        if parts[-1].endswith(LOWER_IS_BETTER):
            return "better" if self.new < self.old else "worse"
        if parts[0] in HIGHER_IS_BETTER:
            return "better" if self.new > self.old else "worse"
        return ""

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, old, new, difference, verdict."""
        both = _number(self.old) and _number(self.new)
        difference = f"{self.new - self.old:+.4g}" if both else ""
        return self.name, _text(self.old), _text(self.new), difference, self.verdict


HEADER = ("", "before", "after", "change", "")


def flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) pairs of nested mappings, in order; a list is one value."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, content


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Returns the differences between two nested mappings; NaN equals NaN."""
    before, after = dict(flatten(old)), dict(flatten(new))
    names = list(before) + [name for name in after if name not in before]
    found = [Change(name, before.get(name), after.get(name)) for name in names]
    return [change for change in found if not _same(change.old, change.new)]


def read(root: Path, file: Path, revision: str | None, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Reads the file at a git revision (None: the working tree); returns an empty dict if it does not exist there.

    Raises:
        PoseRftError: the revision does not exist, or the file is not a mapping.
    """
    where = f"{file} at {revision}" if revision else str(file)
    if revision is None:
        text = (root / file).read_text() if (root / file).is_file() else ""
    else:
        commit = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if "dubious ownership" in commit.stderr:
            raise PoseRftError(
                f"{root.resolve()} is another account's clone, and git reads none that it is not told to trust; "
                f"`git config --global --add safe.directory {root.resolve()}`, or make a clone of your own."
            )
        if commit.returncode != 0:
            raise PoseRftError(f"git knows no revision {revision!r}; `git log --oneline` lists them.")
        shown = git(root, "show", f"{commit.stdout.strip()}:./{file.as_posix()}")
        text = shown.stdout if shown.returncode == 0 else ""
    if not text.strip():
        return {}
    try:
        content = parse(text)
    except (ValueError, yaml.YAMLError) as error:
        raise PoseRftError(f"{where} cannot be read ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise PoseRftError(f"{where} holds {type(content).__name__}, expected a mapping.")
    return content


def another_machine(root: Path, old: str, new: str | None = None) -> str | None:
    """Returns a warning if the two revisions' metrics come from different machines or one names none, else None."""
    before, after = (read(root, SUMMARY, revision, json.loads).get(MACHINE) for revision in (old, new))
    if before == after:
        return None
    told = [", ".join(f"{k} {v}" for k, v in m.items()) if isinstance(m, dict) else "not said" for m in (before, after)]
    return (
        f"The numbers come from different machines (before: {told[0]}; after: {told[1]}), which moves them too; judge "
        "a change by two runs of one machine."
    )


def compare(root: Path, old: str, new: str | None = None) -> tuple[list[Change], list[Change]]:
    """Returns the changes of params and of metrics from revision `old` to `new` (None: the working tree)."""
    return (
        changes(read(root, PARAMS, old, yaml.safe_load), read(root, PARAMS, new, yaml.safe_load)),
        changes(_numbers(root, old), _numbers(root, new)),
    )


def _numbers(root: Path, revision: str | None) -> dict[str, Any]:
    content = read(root, SUMMARY, revision, json.loads)
    return {name: value for name, value in content.items() if name != MACHINE}


def markdown(title: str, found: list[Change]) -> str:
    if not found:
        return f"### {title}\n\nNothing changed.\n"
    rows = [HEADER, ("---", "---:", "---:", "---:", "---"), *(change.cells() for change in found)]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def print_tables(root: Path, old: str, new: str | None) -> None:
    """Prints both tables to the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for title, found in zip(("params.yaml", "metrics"), compare(root, old, new), strict=True):
        heading = f"{title}: {old} → {new or 'working tree'}"
        if not found:
            console.print(f"{heading}: nothing changed")
            continue
        table = Table(title=heading, title_justify="left")
        for number, column in enumerate(HEADER):
            table.add_column(column, justify="right" if number in (1, 2, 3) else "left")
        for change in found:
            style = {"better": "green", "worse": "red"}.get(change.verdict, "")
            table.add_row(*change.cells(), style=style)
        console.print(table)
    if sentence := another_machine(root, old, new):
        console.print(visible(sentence))


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2) or not arguments[0]:
        raise PoseRftError("Name a git revision: `make diff REV=HEAD~1`, or two: `make diff REV='v1 v2'`.")
    print_tables(Path.cwd(), arguments[0], arguments[1] if len(arguments) == 2 else None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new):
        return True
    return bool(old == new)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PoseRftError as error:
        sys.exit(f"error: {error}")
