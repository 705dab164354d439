"""Stage `code`: records the code that each stage can execute in one small file per stage (`data/code/STAGE.json`).

The stage depends on its file, which lists every project source that the stage's imports reach, with a digest of its
executable code: an edit re-runs exactly the stages whose result it can change, and an edit of a docstring or a comment
re-runs none. Runs at every `dvc repro`, before all others; `make status` runs it and asks DVC.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pose_rft.code import FOLDER, closure
from pose_rft.datasets.names import DATASETS, facts_module, reader_module
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic

OUT = Path("data/code")
KNOWN = Path(".scratch/code.json")
WITHOUT_EFFECT = ("pose_rft.code", "stages.code")  # every stage imports them, but no result depends on them
OWN = ("base_model", "pose_encoder", "sft", "retrieval", "rft", "evaluate", "report", "validate")


def roots() -> dict[str, tuple[str, ...]]:
    """Returns {file name: entry modules of the stage}: its own, and those that it imports by name."""
    writers = sorted(f"pose_rft.sample.{path.stem}" for path in (FOLDER / "sample").glob("write_*.py"))
    own = {"sample": ("stages.sample", *writers)}
    own |= {name: (f"stages.{name}",) for name in OWN}
    own["validate"] += (*map(facts_module, DATASETS), *map(reader_module, DATASETS))  # counts depend on reader params
    return own | {f"convert_{name}": ("stages.convert", reader_module(name)) for name in DATASETS}


def stamp() -> str:
    """Returns the sha256 of names, sizes and mtimes of all sources: unchanged until somebody edits one."""
    folders = (FOLDER, FOLDER.parent / "stages")
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    looks = ((path, path.stat()) for path in files)
    told = "".join(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n" for path, found in looks)
    return hashlib.sha256(told.encode()).hexdigest()


def code_of(modules: tuple[str, ...]) -> Mapping[str, str]:
    """Returns {module: digest} of all project code that these modules may execute."""
    return {name: source.digest for name, source in closure(modules).items() if name not in WITHOUT_EFFECT}


def refuse_other_code(stage: str) -> None:
    """Stops a stage whose code differs from `data/code`: DVC would store its result under the wrong code digest.

    Raises:
        PoseRftError: a source was edited since the stage `code` ran.
    """
    name = stage.rpartition(":")[2].replace("@", "_")
    name = name if name in (known := roots()) else name.partition("_")[0]
    file = OUT / f"{name}.json"
    if name not in known or not file.is_file():
        return
    now, then = code_of(known[name]), json.loads(file.read_text())
    if changed := sorted(module for module in {*now, *then} if now.get(module) != then.get(module)):
        raise PoseRftError(
            f"{changed[0]} was edited since `dvc repro` looked at the code ({file}); run `dvc repro` again, which "
            "begins with stages/dvc.yaml:code."
        )


def main(arguments: list[str]) -> None:
    now, known = stamp(), read_known()
    if known is None or known["stamp"] != now:  # else nothing was edited: parsing all sources takes a second
        known = {"stamp": now, "code": {name: dict(code_of(modules)) for name, modules in roots().items()}}
        atomic.write_json(KNOWN, known)
    for name, code in known["code"].items():
        atomic.write_json(OUT / f"{name}.json", code)


def read_known() -> dict[str, Any] | None:
    """Returns what the last run recorded; None if there is nothing usable."""
    try:
        content = json.loads(KNOWN.read_text())
        return content if {"stamp", "code"} <= content.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


if __name__ == "__main__":
    from stages.common import stage_main

    stage_main(main)
