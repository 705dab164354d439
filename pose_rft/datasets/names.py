"""The names of all data sets, and the check of params.yaml against them.

A name becomes a folder, a stage and a command-line argument, so only the names listed here are accepted. This module
is separate from the readers because importing them takes longer than `inventory` runs.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pose_rft.errors import PoseRftError

RELEASES = ("h36m", "mpi_inf_3dhp", "coco", "mpii", "posescript", "bedlam", "3dpw", "llava_instruct")
LABELS = ("label_files", "hmr2_tars")  # training data that others prepared from the releases
TESTS = ("emdb", "chatpose")  # never trained on; users who have a copy switch them on (docs/data.md)
DATASETS = RELEASES + LABELS + TESTS
FOLDERS = {"3dpw": "pw3d"}  # a module name cannot start with a digit


def reader_module(name: str) -> str:
    """Returns the name of the module that reads a data set."""
    return f"pose_rft.datasets.{FOLDERS.get(name, name)}.reader"


def facts_module(name: str) -> str:
    """Returns the name of the module that holds the facts about a data set."""
    return f"pose_rft.datasets.{FOLDERS.get(name, name)}.facts"


def check_names(names: Iterable[Any], where: str) -> None:
    """Checks that every name is a known data set.

    Raises:
        PoseRftError: a name is unknown.
    """
    for name in names:
        if name not in DATASETS:
            raise PoseRftError(f"{where} names {name!r:.80}; known data sets are {', '.join(DATASETS)}.")


def chosen_datasets(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `datasets` of a parsed params.yaml; the readers validate each data set's parameters later.

    Raises:
        PoseRftError: `datasets` is not a mapping of names to parameters, is empty, or names an unknown data set.
    """
    datasets = content.get("datasets")
    if not isinstance(datasets, dict) or not datasets:
        raise PoseRftError("`datasets` in params.yaml names no data set; presets/sample.yaml shows a complete file.")
    check_names(datasets, "`datasets`")
    for name, choices in datasets.items():
        if not isinstance(choices, dict | None):
            raise PoseRftError(
                f"`datasets.{name}` is {choices!r:.60}, expected its choices, such as {{splits: [train]}}."
            )
    return datasets
