"""Stage `inventory`: what lies in each release, as one small file that conversion depends on.

Runs at every `dvc repro`, so it only asks for names, sizes and modification times, never for content. The sample's
files get new times whenever DVC checks them out; for them the stamp of the sample stage stands in for the times.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pose_rft.core.errors import PoseRftError
from pose_rft.core.params_file import params_path, read_yaml
from pose_rft.io import atomic
from pose_rft.io.find import files_below
from pose_rft.shards.inventory import Inventory, take_inventory
from stages.common import stage_main

OUT = Path("data/inventory")
STAMP = Path("data/sample/stamp.json")


def main(arguments: list[str]) -> None:
    content = read_yaml(params_path())
    if not STAMP.is_file():
        raise PoseRftError(f"{STAMP} does not exist; run `dvc repro`, whose sample stage writes it.")
    data = content.get("data")
    ready = isinstance(data, dict) and data.get("source") == "sample" and {"root", "body_model"} <= data.keys()
    inventories = of_sample(content) if ready else of_releases(content)
    for found in inventories:
        atomic.write_json(OUT / f"{found.dataset}.json", asdict(found))


def of_releases(content: dict[str, Any]) -> Iterator[Inventory]:
    """The files that each release's reader will read."""
    from pose_rft.core.params import load
    from pose_rft.releases import DataParams, open_release
    from pose_rft.shards.plan import ShardParams

    data, datasets = load("data", DataParams), content.get("datasets") or {}
    quality = load("shards", ShardParams).jpeg_quality  # none of the inventory's business, but readers take it
    for name in sorted(datasets):
        files = open_release(name, data, datasets, quality).inventory()
        yield take_inventory(name, data.root, [*files, *files_below(data.body_model)])


def of_sample(content: dict[str, Any]) -> Iterator[Inventory]:
    """All files of each miniature release, without its reader and unchecked: their imports would take longer.

    Raises:
        PoseRftError: a release's folder is not there.
    """
    root, body_model = Path(content["data"]["root"]), Path(content["data"]["body_model"])
    state = hashlib.sha256(STAMP.read_bytes()).hexdigest()
    for name, choices in sorted((content.get("datasets") or {}).items()):
        folder = root / str((choices or {}).get("root", name))
        if not folder.is_dir():
            raise PoseRftError(f"{name}: {folder} does not exist; run `dvc repro sample` and then again.")
        yield take_inventory(name, root, [*files_below(folder), *files_below(body_model)], state)


if __name__ == "__main__":
    stage_main(main)
