"""Which data sets a run has: stages that use several ask here, so `datasets` in params.yaml is the only switch.

A data set that `datasets` does not name is left out everywhere: from mixtures, held-out sets and test sets. `convert`
puts a marker file into its shard folder, so stages see it in their dependencies anyway. If a data set is present but
lacks a split that a training needs, that is an error; a test set may be missing.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pose_rft.datasets.names import check_names
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic

if TYPE_CHECKING:  # slow to import, and most callers do not need it
    from pose_rft.params import Section

P = TypeVar("P", bound="Section")
T = TypeVar("T")  # a task
SHARDS = Path("data/shards")
MARK = "left_out.json"


def mark_left_out(dataset: str) -> None:
    """Writes the marker file in place of the data set's shards."""
    with atomic.folder(SHARDS / dataset) as folder:
        atomic.write_json(folder / MARK, {"dataset": dataset, "left_out": True})


def is_left_out(name: str) -> bool:
    """Returns whether a data set, or that of a split `DATASET/SPLIT`, is left out."""
    return (SHARDS / name.partition("/")[0] / MARK).is_file()


def of_this_run(names: Iterable[str], whose: str, optional: bool = False) -> list[str]:
    """Returns the data sets or splits that are not left out; prints a note that `whose` goes without the others.

    Args:
        optional: a split (`DATASET/SPLIT`) also counts as left out if only `datasets.DATASET.splits` lacks it.
    Raises:
        PoseRftError: a name is not that of a data set.
    """
    names = list(names)
    check_names((name.partition("/")[0] for name in names), whose)
    left_out = [name for name in names if is_left_out(name) or (optional and not (SHARDS / name).is_dir())]
    if left_out and os.environ.get("RANK", "0") == "0":
        print(f"note: {whose} goes without {', '.join(left_out)}: left out of `datasets`.", file=sys.stderr)
    return [name for name in names if name not in left_out]


def validation_of_this_run(tasks: Iterable[tuple[T, Mapping[str, str]]]) -> list[tuple[T, str]]:
    """Returns (task, DATASET/SPLIT) of this run's validation sets of `calibration`; without any, nothing is calibrated.

    Raises:
        PoseRftError: a name is not that of a data set.
    """
    named = [(task, f"{name}/{split}") for task, sets in tasks for name, split in sets.items()]
    kept = of_this_run([name for _, name in named], "`calibration`", optional=True)
    return [(task, name) for task, name in named if name in kept]


def training_of_this_run(params: P, section: str) -> P:
    """Returns the section `sft` or `rft` with its mixture and held-out sets reduced to data sets of this run.

    Raises:
        PoseRftError: nothing is left to train on, or a name is not that of a data set.
    """
    training: Any = params  # SFTParams or RFTParams, whose imports most callers do not need
    kept = set(of_this_run(training.examples.datasets(), f"`{section}.examples.mixture`"))
    if not kept:
        raise PoseRftError(f"`datasets` leaves out all data sets of `{section}.examples.mixture`; name one in both.")
    mixture = {
        task: {name: weight for name, weight in weights.items() if name in kept}
        for task, weights in training.examples.mixture.items()
    }
    heldout = {
        task: {name: sets[name] for name in of_this_run(sets, f"`{section}.heldout`")}
        for task, sets in training.heldout.tasks()
    }
    own = {
        "examples": training.examples.model_copy(update={"mixture": mixture}),
        "heldout": training.heldout.model_copy(update=heldout),
    }
    return params.model_copy(update=own)
