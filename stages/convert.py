"""Stage `convert@DATASET`: one release becomes shards, `data/shards/DATASET/SPLIT`.

All splits are finished in scratch before the folder takes its place, because DVC removes `data/shards/DATASET` before
it starts the stage: a killed conversion loses neither complete shards nor complete splits.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from pose_rft.convert import convert
from pose_rft.core import params
from pose_rft.core.errors import PoseRftError
from pose_rft.core.params_file import params_path, read_yaml
from pose_rft.io import atomic
from pose_rft.releases import DataParams, open_release
from pose_rft.shards.plan import ShardParams
from stages.common import scratch_dir, stage_main

INVENTORY = Path("data/inventory")
OUT = Path("data/shards")
METRICS = Path("results/convert")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.convert", description=__doc__)
    parser.add_argument("--dataset", required=True)
    dataset = parser.parse_args(arguments).dataset
    data = params.load("data", DataParams)
    shards = params.load("shards", ShardParams)
    datasets = read_yaml(params_path()).get("datasets") or {}
    release = open_release(dataset, data, datasets, shards.jpeg_quality)
    inventory = INVENTORY / f"{dataset}.json"
    # What may change without changing a byte of a shard (executor, workers, the allowed defects) is not in the key.
    identity = {
        "reader": {name: value for name, value in (datasets[dataset] or {}).items() if name != "max_defect_rate"},
        "shards": shards.model_dump(include={"samples_per_shard", "jpeg_quality"}),
        "data": data.model_dump(mode="json"),
    }
    scratch = scratch_dir(f"convert/{dataset}", identity, [inventory])
    digest = read_digest(inventory)
    finished = scratch / "finished"
    summaries = {
        split: convert(
            release, split, finished / split, shards, release.params.max_defect_rate, digest, scratch / split
        )
        for split in release.params.splits
    }
    atomic.write_json(METRICS / f"{dataset}.json", metrics(dataset, {s: m.metrics for s, m in summaries.items()}))
    place(finished, OUT / dataset)
    shutil.rmtree(scratch.parent, ignore_errors=True)


def read_digest(path: Path) -> str:
    """
    Raises:
        PoseRftError: not an inventory file.
    """
    try:
        return str(json.loads(path.read_text())["digest"])
    except (ValueError, KeyError, TypeError):
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
        raise PoseRftError(f"{out} cannot be written ({error.strerror}); mend that and run again.") from None


if __name__ == "__main__":
    stage_main(main)
