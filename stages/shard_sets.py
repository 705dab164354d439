"""Which data sets a run has: a stage that names several asks here, so that `datasets` in params.yaml is the one place.

A data set that `datasets` does not name is left out everywhere: of mixtures, of held-out and test sets. `convert` puts
a mark into its folder of shards, so stages see it in what they depend on anyway. A data set that is there but lacks a
split that a training wants is not left out but a mistake; a test set may be missing.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pose_rft.datasets.names import check_names
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic

if TYPE_CHECKING:  # heavy, and most who ask here do not need it
    from pose_rft.params import Section

P = TypeVar("P", bound="Section")
T = TypeVar("T")  # a task
SHARDS = Path("data/shards")
MARK = "left_out.json"


def mark_left_out(dataset: str) -> None:
    """In the place of the data set's shards."""
    with atomic.folder(SHARDS / dataset) as folder:
        atomic.write_json(folder / MARK, {"dataset": dataset, "left_out": True})


def is_left_out(name: str) -> bool:
    """Of a data set, or of a split `DATASET/SPLIT`."""
    return (SHARDS / name.partition("/")[0] / MARK).is_file()


def of_this_run(names: Iterable[str], whose: str, optional: bool = False) -> list[str]:
    """Those of the data sets or splits that are not left out; the others are told, with `whose` they were.

    Args:
        optional: a split (`DATASET/SPLIT`) counts as left out also where only `datasets.DATASET.splits` lacks it.
    Raises:
        PoseRftError: a name that is no data set's.
    """
    names = list(names)
    check_names((name.partition("/")[0] for name in names), whose)
    left_out = [name for name in names if is_left_out(name) or (optional and not (SHARDS / name).is_dir())]
    if left_out and os.environ.get("RANK", "0") == "0":
        print(f"note: {whose} goes without {', '.join(left_out)}: left out of `datasets`.", file=sys.stderr)
    return [name for name in names if name not in left_out]


def validation_of_this_run(tasks: Iterable[tuple[T, Mapping[str, str]]]) -> list[tuple[T, str]]:
    """(task, DATASET/SPLIT) of the validation sets of `calibration` that this run has; without any, nothing is fitted.

    Raises:
        PoseRftError: a name is no data set's.
    """
    named = [(task, f"{name}/{split}") for task, sets in tasks for name, split in sets.items()]
    kept = of_this_run([name for _, name in named], "`calibration`", optional=True)
    return [(task, name) for task, name in named if name in kept]


def training_of_this_run(params: P, section: str) -> P:
    """`sft` or `rft` whose mixture and held-out sets name only data sets of this run.

    Raises:
        PoseRftError: nothing is left to train on, or a name is no data set's.
    """
    training: Any = params  # of both kinds; their types import what few stages that ask here need
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
