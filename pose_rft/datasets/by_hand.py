"""Translates the options of `pose-rft shards convert` into a section of `datasets` in params.yaml.

The command takes a folder and the name of a split; settings that params.yaml has for the data set still apply. In a
data set of label files or tars, each file or folder is a split, so the split's name selects the file or folder.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pose_rft.datasets.common.base import check_split
from pose_rft.datasets.registry import reader_class
from pose_rft.errors import PoseRftError


def one_split(
    dataset: str,
    split: str,
    root: Path,
    known: Mapping[str, Any],
    fits: bool = True,
    labels: Path | None = None,
    images: Path | None = None,
) -> tuple[str, dict[str, Any]]:
    """Returns the split's name and the parameter section that reads it from `root`.

    Args:
        known: the data set's section of params.yaml; fits: whether to use the SMPL fits that it lists.
        labels, images: for `label_files` only: the file (default: SPLIT.npz) and its image folder (default: root).
    Raises:
        PoseRftError: no such data set or split, or the data set does not support an option.
    """
    fields = reader_class(dataset).Params.model_fields
    choices = {**known, "root": str(root)}
    if (labels or images) and dataset != "label_files":
        raise PoseRftError(
            f"--labels and --images name a file of others; they go with label_files, not with {dataset}."
        )
    if dataset == "label_files":
        told = _told(known, "files", split, dict) or {}
        if labels is not None:
            choices["root"] = str(labels.resolve().parent)
        path = labels.name if labels else told.get("path", f"{split}.npz")
        folder = str(images.resolve()) if images else told.get("images", str(root))
        return split, choices | {"files": {split: {**told, "path": path, "images": folder}}}
    if dataset == "hmr2_tars":
        return split, choices | {"folders": {split: _told(known, "folders", split, str) or split}}
    if dataset == "coco" and (named := re.fullmatch(r"(train|val)(2014|2017)", split)):
        split, choices["year"] = named[1], int(named[2])
    allowed = get_args(get_args(fields["splits"].annotation)[0])
    choices["splits"] = [check_split(split, allowed, dataset)]
    if not fits:
        if "fits" not in fields:
            raise PoseRftError(f"--no-fits: {dataset} takes no SMPL fits of others; leave the option away.")
        choices["fits"] = []
    return split, choices


def _told(known: Mapping[str, Any], name: str, split: str, kind: type) -> Any:
    """Returns what params.yaml sets for a split, or None if it sets nothing.

    Raises:
        PoseRftError: the value has the wrong type.
    """
    section = known.get(name) or {}
    found = section.get(split) if isinstance(section, dict) else section
    if found is not None and not isinstance(found, kind):
        raise PoseRftError(f"`{name}` of the data set in params.yaml is {section!r:.80}, expected splits and files.")
    return found
