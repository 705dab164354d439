"""The data sets by name, and the names of params.yaml checked against them before anything is made of them.

A name becomes a folder, a stage and a word in a command, so nothing but the ones listed here gets that far. Apart from
the readers, because `inventory` runs in less time than they take to import.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pose_rft.errors import PoseRftError

RELEASES = ("h36m", "mpi_inf_3dhp", "coco", "mpii", "posescript", "bedlam", "3dpw", "llava_instruct")
LABELS = ("label_files", "hmr2_tars")  # what others made ready from them
TESTS = ("emdb", "chatpose")  # nothing trains on them; who has them switches them on (docs/data.md)
DATASETS = RELEASES + LABELS + TESTS
FOLDERS = {"3dpw": "pw3d"}  # a module's name starts with a letter


def reader_module(name: str) -> str:
    """The module that reads a data set."""
    return f"pose_rft.datasets.{FOLDERS.get(name, name)}.reader"


def facts_module(name: str) -> str:
    """The module that says what is known of a data set."""
    return f"pose_rft.datasets.{FOLDERS.get(name, name)}.facts"


def check_names(names: Iterable[Any], where: str) -> None:
    """Refuses names of data sets that are not known.

    Raises:
        PoseRftError: one of the names is no data set's.
    """
    for name in names:
        if name not in DATASETS:
            raise PoseRftError(f"{where} names {name!r:.80}; known data sets are {', '.join(DATASETS)}.")


def chosen_datasets(content: Mapping[str, Any]) -> dict[str, Any]:
    """`datasets` of a whole params.yaml: what to take, and how (unchecked, for the readers).

    Raises:
        PoseRftError: no mapping of data sets to their choices, an unknown data set, or none at all.
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
