"""Readers of the eight releases: a release on disk → Records.

`open_release` is the one door. A reader is the `READER` of its package's module `reader`; what it is made of stands in
`pose_rft.datasets.common.base`.
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
    """`data` in params.yaml: where releases and body model are; `sample` lets the sample stage make both."""

    source: Literal["sample", "releases"]
    root: Path
    body_model: Path


def reader_class(name: str) -> Any:
    """The class that reads a data set; it knows its `Params`, `licence` and `where_to_get`.

    Raises:
        PoseRftError: an unknown data set.
    """
    check_names([name], "`datasets`")
    return import_module(reader_module(name)).READER  # only this one: those of videos and MAT files are heavy


def facts(name: str) -> "Facts":
    """What is known of a data set beside its reader; nothing of a name that is none of ours."""
    from pose_rft.datasets.common.facts import Facts  # brings polars, which `inventory` does not wait for

    return import_module(facts_module(name)).FACTS if name in DATASETS else Facts()


def open_release(name: str, data: DataParams, datasets: Mapping[str, Any], jpeg_quality: int) -> "DatasetReader":
    """The reader of one data set.

    Args:
        name: a key of `datasets` in params.yaml; datasets: that section, unchecked.
        jpeg_quality: for frames of videos, which are encoded once.
    Raises:
        PoseRftError: an unknown data set, a parameter that its reader refuses, or no folder where it should be.
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
