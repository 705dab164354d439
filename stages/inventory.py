"""Stage `inventory`: what lies in each release, as one small file that conversion depends on.

Runs at every `dvc repro`, so it only asks for names, sizes and modification times, never for content. The sample's
files get new times whenever DVC checks them out; for them the stamp of the sample stage stands in for the times.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pose_rft.core import params
from pose_rft.core.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.releases import DataParams
from pose_rft.shards.inventory import files_below, take_inventory
from stages.common import stage_main

OUT = Path("data/inventory")
STAMP = Path("data/sample/stamp.json")


def main(arguments: list[str]) -> None:
    data = params.load("data", DataParams)
    datasets = params.read_yaml(params.params_path()).get("datasets") or {}
    if not STAMP.is_file():
        raise PoseRftError(f"{STAMP} does not exist; run `dvc repro`, whose sample stage writes it.")
    body_model = list(files_below(data.body_model))
    for name in sorted(datasets):
        if data.source == "sample":
            files = sample_files(name, data.root / str((datasets[name] or {}).get("root", name)))
            state = hashlib.sha256(STAMP.read_bytes()).hexdigest()
        else:
            files, state = release_files(name, data, datasets), None
        found = take_inventory(name, data.root, [*files, *body_model], state)
        atomic.write_json(OUT / f"{name}.json", asdict(found))


def release_files(name: str, data: DataParams, datasets: dict[str, Any]) -> list[Path]:
    """What the release's reader will read."""
    from pose_rft.releases import open_release
    from pose_rft.shards.plan import ShardParams

    # The quality is none of the inventory's business, but readers take it.
    return list(open_release(name, data, datasets, params.load("shards", ShardParams).jpeg_quality).inventory())


def sample_files(name: str, folder: Path) -> list[Path]:
    """All files of one miniature release, without its reader (whose imports would take longer than the rest).

    Raises:
        PoseRftError: the folder is not there.
    """
    if not folder.is_dir():
        raise PoseRftError(f"{name}: {folder} does not exist; run `dvc repro sample` and then again.")
    return list(files_below(folder))


if __name__ == "__main__":
    stage_main(main)
