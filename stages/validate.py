"""Stage `validate`: checks all shards against their manifests and published counts, and for internal consistency."""

from pathlib import Path

from pose_rft import params
from pose_rft.datasets.common.facts import Published
from pose_rft.datasets.registry import DataParams, facts, open_release
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.params_file import params_path, read_yaml
from pose_rft.shards.plan import ShardParams
from pose_rft.validation import checks as told
from pose_rft.validation import run as validate
from stages.common import stage_main

SHARDS = Path("data/shards")
OUT = Path("results/validate")


def main(arguments: list[str]) -> None:
    data = params.load("data", DataParams)
    shards = params.load("shards", ShardParams)
    strict = params.load("validate", validate.ValidateParams).strict
    datasets = read_yaml(params_path()).get("datasets") or {}
    folders: dict[str, dict[str, Path]] = {}
    counted: dict[str, list[Published]] = {}
    for name in sorted(datasets):
        folders[name] = {path.name: path for path in sorted((SHARDS / name).glob("*")) if path.is_dir()}
        if not folders[name]:
            raise PoseRftError(f"{SHARDS / name} holds no split; run `dvc repro convert@{name}`.")
        if data.source == "releases":
            counted[name] = facts(name).counts(open_release(name, data, datasets, shards.jpeg_quality).params)
    checks = validate.validate(folders, counted, data.body_model, shards, strict)
    atomic.write_text(OUT / "report.md", told.report(checks))
    atomic.write_json(OUT / "checks.json", told.as_rows(checks))
    atomic.write_json(OUT / "metrics.json", told.metrics(checks))
    if sentence := told.failure(checks, OUT / "report.md"):
        raise PoseRftError(sentence)


if __name__ == "__main__":
    stage_main(main)
