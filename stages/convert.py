"""Stage `convert@DATASET`: converts one release to shards, `data/shards/DATASET/SPLIT`.

All splits are finished in scratch before the folder is moved into place, because DVC removes `data/shards/DATASET`
before it starts the stage: a killed conversion loses neither complete shards nor complete splits. A data set that
`datasets` leaves out gets a folder that holds only a marker file (`stages/shard_sets.py`).
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from pose_rft import params
from pose_rft.datasets.names import DATASETS
from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.lock import alone_in, remove_abandoned
from pose_rft.shards.convert import convert
from pose_rft.shards.plan import ShardParams
from stages.common import scratch_dir, stage_main
from stages.shard_sets import SHARDS, mark_left_out

INVENTORY = Path("data/inventory")
METRICS = Path("results/convert")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.convert", description=__doc__)
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    dataset = parser.parse_args(arguments).dataset
    inventory = read_inventory(INVENTORY / f"{dataset}.json")
    if inventory is None:
        mark_left_out(dataset)
        atomic.write_json(METRICS / f"{dataset}.json", {"data": {}})
        return
    digest, choices = inventory
    data = params.load("data", DataParams)
    shards = params.load("shards", ShardParams)
    release = open_release(dataset, data, {dataset: choices}, shards.jpeg_quality)
    # Settings that change no byte of a shard (executor, workers, the allowed defects) are not in the key.
    identity = {
        "reader": {name: value for name, value in choices.items() if name != "max_defect_rate"},
        "shards": shards.model_dump(include={"samples_per_shard", "jpeg_quality"}),
        "data": data.model_dump(mode="json"),
        "inventory": digest,
    }
    scratch = scratch_dir(f"convert/{dataset}", identity, [])
    with alone_in(scratch):
        finished = scratch / "finished"
        summaries = {
            split: convert(
                release, split, finished / split, shards, release.params.max_defect_rate, digest, scratch / split
            )
            for split in release.params.splits
        }
        atomic.write_json(METRICS / f"{dataset}.json", metrics(dataset, {s: m.metrics for s, m in summaries.items()}))
        place(finished, SHARDS / dataset)
    remove_abandoned(scratch.parent)  # not everything: another clone may be converting other files in there


def read_inventory(path: Path) -> tuple[str, dict[str, Any]] | None:
    """Returns the digest of a release and its `datasets` entry; None if it is left out.

    Raises:
        PoseRftError: the file is not an inventory.
    """
    try:
        content = json.loads(path.read_text())
        return None if content.get("left_out") else (str(content["digest"]), dict(content["choices"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise PoseRftError(f"{path} is not an inventory; run `dvc repro stages/dvc.yaml:inventory`.") from None


def metrics(dataset: str, splits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`data.DATASET.{samples,defects,shards}` in total, and the statistics of each split below `splits`."""
    totals = {name: sum(split[name] for split in splits.values()) for name in ("samples", "defects", "shards")}
    return {"data": {dataset: {**totals, "splits": splits}}}


def place(folder: Path, out: Path) -> None:
    """Moves the finished folder to its place."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(folder, out)
    except OSError as error:
        raise PoseRftError(f"{out} cannot be written ({error.strerror}); fix that and run again.") from None


if __name__ == "__main__":
    stage_main(main)
