"""Opens the readers, which turn a data set on disk into Records.

`open_release` is the single entry point. Each reader is the `READER` of its package's module `reader`; its interface
is in `pose_rft.datasets.common.base`.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pose_rft.datasets.names import DATASETS, check_names, facts_module, reader_module
from pose_rft.errors import PoseRftError
from pose_rft.params import Section, parse

if TYPE_CHECKING:
    from pose_rft.datasets.common.base import DatasetReader
    from pose_rft.datasets.common.facts import Facts


class DataParams(Section):
    """`data` in params.yaml: where releases and body model are; with `sample`, the sample stage creates both."""

    source: Literal["sample", "releases"]
    root: Path
    body_model: Path


def reader_class(name: str) -> Any:
    """Returns the class that reads a data set; its attributes include `Params`, `licence` and `where_to_get`.

    Raises:
        PoseRftError: the data set is unknown.
    """
    check_names([name], "`datasets`")
    return import_module(reader_module(name)).READER  # only this one: those of videos and MAT files import slowly


def facts(name: str) -> "Facts":
    """Returns the facts about a data set; empty `Facts` if the name is unknown."""
    from pose_rft.datasets.common.facts import Facts  # imports polars, too slow for `inventory`

    return import_module(facts_module(name)).FACTS if name in DATASETS else Facts()


def open_release(name: str, data: DataParams, datasets: Mapping[str, Any], jpeg_quality: int) -> "DatasetReader":
    """Returns the reader of one data set.

    Args:
        name: a key of `datasets` in params.yaml; datasets: that section, not yet validated.
        jpeg_quality: for video frames, which are encoded once.
    Raises:
        PoseRftError: the data set is unknown, a parameter is invalid, or the data set's folder does not exist.
    """
    reader = reader_class(name)
    params = parse(datasets.get(name), reader.Params, f"`datasets.{name}`")
    folder = data.root / params.root
    if not folder.is_dir():
        hint = (
            "run the sample stage (`dvc repro sample`)"
            if data.source == "sample"
            else f"get it from {reader.where_to_get} (licence: {reader.licence}) and set `data.root`"
        )
        raise PoseRftError(f"{name}: the folder {folder} does not exist; {hint}.")
    release: DatasetReader = reader(data.root, params, data.body_model, jpeg_quality)
    return release
