"""Stage `inventory`: lists each release's files and its `datasets` entry in one small file per data set.

The data set's conversion depends on that file. For a data set that params.yaml leaves out, it says so.
Runs at every `dvc repro`, so it only reads names, sizes and modification times, never content. The sample's files get
new times whenever DVC checks them out; for them, the stamp of the sample stage replaces the times.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pose_rft.datasets.names import DATASETS, RELEASES, chosen_datasets
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.find import files_below
from pose_rft.params_file import params_path, read_yaml
from pose_rft.shards.inventory import Inventory, take_inventory
from stages.common import stage_main

OUT = Path("data/inventory")
STAMP = Path("data/sample/stamp.json")


def main(arguments: list[str]) -> None:
    content = read_yaml(params_path())
    datasets = chosen_datasets(content)
    if not STAMP.is_file():
        raise PoseRftError(f"{STAMP} does not exist; run `dvc repro`, whose sample stage writes it.")
    data = content.get("data")
    ready = isinstance(data, dict) and data.get("source") == "sample" and {"root", "body_model"} <= data.keys()
    inventories = of_sample(content["data"], datasets) if ready else of_releases(datasets)
    for found in inventories:
        name = found.dataset
        try:
            atomic.write_json(OUT / f"{name}.json", asdict(found) | {"choices": datasets[name] or {}})
        except (TypeError, ValueError) as error:  # YAML allows dates and NaN
            raise PoseRftError(f"`datasets.{name}` holds a value that no reader takes ({error}).") from None
    left_out = [name for name in DATASETS if name not in datasets]
    for name in left_out:
        atomic.write_json(OUT / f"{name}.json", {"dataset": name, "left_out": True})
    if releases := [name for name in left_out if name in RELEASES]:
        print(f"left out of `datasets`: {', '.join(releases)}")


def of_releases(datasets: dict[str, Any]) -> Iterator[Inventory]:
    """Yields an inventory of the files that each release's reader will read."""
    from pose_rft.datasets.registry import DataParams, open_release
    from pose_rft.params import load
    from pose_rft.shards.plan import ShardParams

    data = load("data", DataParams)
    quality = load("shards", ShardParams).jpeg_quality  # irrelevant here, but readers require it
    for name in sorted(datasets):
        files = open_release(name, data, datasets, quality).inventory()
        yield take_inventory(name, data.root, [*files, *files_below(data.body_model)])


def of_sample(data: dict[str, Any], datasets: dict[str, Any]) -> Iterator[Inventory]:
    """Yields an inventory of all files of each miniature release, without reader or checks, which are slow to import.

    Raises:
        PoseRftError: a release's folder does not exist.
    """
    root, body_model = Path(data["root"]), Path(data["body_model"])
    state = hashlib.sha256(STAMP.read_bytes()).hexdigest()
    for name, choices in sorted(datasets.items()):
        folder = root / str((choices or {}).get("root", name))
        if not folder.is_dir():
            raise PoseRftError(f"{name}: {folder} does not exist; run `dvc repro sample` and then again.")
        yield take_inventory(name, root, [*files_below(folder), *files_below(body_model)], state)


if __name__ == "__main__":
    stage_main(main)
