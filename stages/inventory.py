"""Stage `inventory`: what lies in each release, as one small file that conversion depends on.

Runs at every `dvc repro`, so it only asks for names, sizes and modification times, never for content. The sample's
files get new times whenever DVC checks them out; for them the stamp of the sample stage stands in for the times.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from pose_rft import params
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.releases import DataParams, open_release
from pose_rft.shards.plan import ShardParams
from stages.common import stage_main

OUT = Path("data/inventory")
STAMP = Path("data/sample/stamp.json")


def main(arguments: list[str]) -> None:
    data = params.load("data", DataParams)
    datasets = params.read_yaml(params.params_path()).get("datasets") or {}
    if not STAMP.is_file():
        raise PoseRftError(f"{STAMP} does not exist; run `dvc repro`, whose sample stage writes it.")
    body_model = list(_walk(data.body_model))
    for name in sorted(datasets):
        if data.source == "sample":
            files = sample_files(name, data.root / str((datasets[name] or {}).get("root", name)))
            state = hashlib.sha256(STAMP.read_bytes()).hexdigest()
        else:
            # The quality is none of the inventory's business, but readers take it.
            quality = params.load("shards", ShardParams).jpeg_quality
            files, state = open_release(name, data, datasets, quality).inventory(), None
        atomic.write_json(OUT / f"{name}.json", inventory(name, data.root, [*files, *body_model], state))


def sample_files(name: str, folder: Path) -> list[Path]:
    """All files of one miniature release, without its reader (whose imports would take longer than the rest).

    Raises:
        PoseRftError: the folder is not there.
    """
    if not folder.is_dir():
        raise PoseRftError(f"{name}: {folder} does not exist; run `dvc repro sample` and then again.")
    return list(_walk(folder))


def inventory(dataset: str, root: Path, files: Iterable[Path], state: str | None) -> dict[str, str | int]:
    """Count, bytes and digest of names (relative to `root`), sizes and times; a `state` takes the place of the times.

    Raises:
        PoseRftError: no file at all, or one that cannot be looked at.
    """
    digest, count, total = hashlib.sha256((state or "").encode()), 0, 0
    for path in sorted(files):
        try:
            found = path.stat()
        except OSError as error:
            raise PoseRftError(f"{dataset}: {path} cannot be read ({error.strerror}); mend its permission.") from None
        time = found.st_mtime_ns if state is None else 0
        digest.update(f"{os.path.relpath(path, root)}\0{found.st_size}\0{time}\n".encode(errors="surrogateescape"))
        count, total = count + 1, total + found.st_size
    if count == 0:
        raise PoseRftError(f"{dataset}: the release holds no file; see docs/data.md for what belongs in its folder.")
    return {"dataset": dataset, "digest": digest.hexdigest(), "files": count, "bytes": total}


def _walk(folder: Path) -> Iterable[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


if __name__ == "__main__":
    stage_main(main)
