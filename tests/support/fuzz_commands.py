"""What `doors.py` feeds beside files and folders: command lines of `pose-rft`, damaged or about damaged files.

A command is run in this process, in a folder of its own. Status 0 or 1 is a result; status 2 must come with a sentence.
"""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.errors import PoseRftError
from tests.support.fuzz_folders import make_policy, make_shards, tiny_bodies
from tests.test_cli_convert import small_coco

ROOT = Path(__file__).resolve().parents[2]
LINES = {
    "command: tables": ["tables", "summary.json"],
    "command: plan": ["plan"],
    "command: describe": ["describe", "pose.npz", "--body-model", "bodies"],
    "command: predict": ["predict", "a.jpg", "--boxes", "boxes.json", "--model", "model", "--body-model", "bodies"],
    "command: shards verify": ["shards", "verify", "shards"],
    "command: shards stats": ["shards", "stats", "shards"],
    "command: shards show": ["shards", "show", "shards", "u00_000003", "--out", "a.png"],
    "command: shards convert": [
        *("shards", "convert", "coco", "--root", "coco", "--split", "train", "--out", "out", "--no-fits"),
        *("--executor", "serial", "--workers", "1", "--body-model", "bodies"),
    ],
    "command: doctor data": ["doctor", "data", "--root", "."],
}
FILES = {  # beside params.yaml, which every command may read
    "tables": "summary.json",
    "describe": "pose.npz",
    "predict": "a.jpg boxes.json model/*",
    "shards verify": "shards/*",
    "shards stats": "shards/*",
    "shards show": "shards/*",
    "shards convert": "coco/annotations/* coco/train2017/*",
}
ODD = (
    "",
    "-",
    "--",
    "\0",
    "a\nb",
    "\ud83d",
    "$(touch ran)",
    "; touch ran",
    "../../x",
    "-1",
    "1e999",
    "nan",
    "x" * 500,
)


def make(folder: Path) -> None:
    import cv2

    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copy(ROOT / "metrics/summary.json", folder)
    np.savez(folder / "pose.npz", poses=np.zeros((2, 72)))
    cv2.imwrite(str(folder / "a.jpg"), np.full((48, 64, 3), 90, np.uint8))
    boxes = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "bbox": [5, 5, 30, 30], "category_id": 1}],
    }
    (folder / "boxes.json").write_text(json.dumps(boxes))
    make_policy(folder / "model")
    show_poses(folder / "model")
    (folder / "bodies").symlink_to(tiny_bodies())
    small_coco(folder / "coco")
    (folder / "shards").mkdir()
    make_shards(folder / "shards")


def show_poses(model: Path) -> None:
    """An untrained policy's words are noise: once it has spoken, its answer is the template's, and has a pose."""
    from pose_rft.inference import passes
    from pose_rft.inference.sampling import Completions
    from pose_rft.policy.processor import PoseProcessor

    ids, generate = list(PoseProcessor.from_pretrained(model).answer_ids), passes.generate

    def template(model: Any, prompts: list[list[int]], *given: Any, **named: Any) -> Completions:
        generate(model, prompts, *given, **named)
        return Completions.from_lists([[ids] for _ in prompts], model.config.end_token_id)

    if generate.__name__ != template.__name__:
        passes.generate = template


def damaged_line(kind: str, rng: np.random.Generator) -> list[str]:
    line = list(LINES[kind])
    if rng.random() < 0.3:
        line[int(rng.integers(1, len(line))) if len(line) > 1 else 0] = ODD[int(rng.integers(len(ODD)))]
    return line


def file_of(folder: Path, kind: str, rng: np.random.Generator) -> Path:
    patterns = FILES.get(kind.removeprefix("command: "), "params.yaml").split()
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    files += [folder / "params.yaml"] if rng.random() < 0.2 else []
    return files[int(rng.integers(len(files)))]


def run(folder: Path, line: list[str]) -> None:
    """
    Raises:
        PoseRftError: with what the command said, if it ended with status 2. AssertionError: it said nothing, or a lot.
    """
    from pose_rft import cli

    said, before, where = io.StringIO(), sys.argv, Path.cwd()
    os.chdir(folder)
    sys.argv = ["pose-rft", *line]
    status: object = 0
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as end:
        status = end.code or 0
    finally:
        sys.argv = before
        os.chdir(where)
    told = said.getvalue()
    assert status in (0, 1, 2) and "Traceback" not in told, (line, status, told)
    if status == 2:
        assert told.strip(), line
        raise PoseRftError("a sentence" if len(told) < 5000 else told)
