"""What the command line says of one split, in the words of `datasets` in params.yaml.

`pose-rft shards convert` takes a folder and the name of a split; what params.yaml says of the data set counts where it
says something. Label files and tars, which are their own splits, take the file or folder of that name.
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
    """The split's name and the section that reads it from `root`.

    Args:
        known: what params.yaml says of the data set; fits: whether SMPL fits that it names are wanted.
        labels, images: of `label_files`: the file (default: SPLIT.npz) and the folder of its pictures (default: root).
    Raises:
        PoseRftError: no such data set or split, or an option that the data set does not have.
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
    """What params.yaml says of a split; None where it says nothing.

    Raises:
        PoseRftError: something else stands there.
    """
    section = known.get(name) or {}
    found = section.get(split) if isinstance(section, dict) else section
    if found is not None and not isinstance(found, kind):
        raise PoseRftError(f"`{name}` of the data set in params.yaml is {section!r:.80}, expected splits and files.")
    return found
