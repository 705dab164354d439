"""Every reader, fed with damaged files in a child of bounded memory: a result or one sentence, nothing else (S21).

`FUZZ_INPUTS` and `FUZZ_SEED` set how many inputs and which; the slow test takes its seed from the date.
"""

import collections
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).parents[1] / "support/fuzz_doors.py"
FINE = ("result", "sentence")
MOST_DEATHS = 20


def run(folder: Path, seed: int, count: int, first: int = 0) -> tuple[collections.Counter[tuple[str, str]], list[str]]:
    """Inputs `first` to `count`: how often each (kind, outcome) came, and what is neither a result nor a sentence."""
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    bad: list[str] = []
    while first < count and len(bad) < MOST_DEATHS:
        command = [sys.executable, str(CHILD), str(folder), str(seed), str(first), str(count)]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            "PYTHONPATH": str(CHILD.parents[2]),
        }
        done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace", env=environment)
        kind = ""
        for line in done.stdout.splitlines():
            if line.startswith("> "):
                number, kind = line[2:].split(" ", 1)
                first = int(number) + 1
            elif line.startswith("< "):
                told = json.loads(line[2:])
                found[kind, told if told in FINE else "other"] += 1
                if told not in FINE:
                    bad.append(f"{kind}, seed {seed}, input {first - 1}: {told}")
                kind = ""
        if done.returncode:
            bad.append(
                f"{kind}, seed {seed}, input {first - 1} ended the child ({done.returncode}): {done.stderr[-800:]}"
            )
            if not kind:  # before any input
                break
    return found, bad


def table(found: collections.Counter[tuple[str, str]]) -> str:
    kinds = sorted({kind for kind, _ in found})
    rows = [[kind, *(found[kind, outcome] for outcome in (*FINE, "other"))] for kind in kinds]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [["kind", *FINE, "other"], *rows])


def check(folder: Path, seed: int, count: int) -> None:
    found, bad = run(folder, seed, count)
    print(table(found))
    assert not bad, f"{len(bad)} of {count} inputs; the first: {bad[0]}"
    assert sum(found.values()) == count


@pytest.mark.pipeline
def test_five_hundred_damaged_inputs_are_results_or_sentences(tmp_path: Path) -> None:
    check(tmp_path, int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_INPUTS", "500")))


@pytest.mark.slow
def test_ten_thousand_damaged_inputs_are_results_or_sentences(tmp_path: Path) -> None:
    today = datetime.datetime.now(datetime.UTC).date().toordinal()
    check(tmp_path, int(os.environ.get("FUZZ_SEED", today)), int(os.environ.get("FUZZ_INPUTS", "10000")))
