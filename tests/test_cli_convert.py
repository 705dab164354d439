"""`pose-rft shards convert`: conversion outside the pipeline, in a folder without params.yaml."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from pose_rft.io.atomic import write_json
from pose_rft.shards.verify import verify

ROOT = Path(__file__).parents[1]


def pose_rft(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pose_rft.cli import main; main()", "shards", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def small_coco(root: Path) -> None:
    (root / "train2017").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    images, rows = [], []
    for number in range(1, 4):
        name = f"{number:012d}.jpg"
        cv2.imwrite(str(root / "train2017" / name), noise)
        images.append({"id": number, "file_name": name, "width": 64, "height": 48})
        points = [value for joint in range(17) for value in (10 + joint, 20, 2)]
        rows.append({"id": number, "image_id": number, "iscrowd": 0, "keypoints": points, "bbox": [5, 5, 40, 30]})
    write_json(root / "annotations/person_keypoints_train2017.json", {"images": images, "annotations": rows})


def test_a_split_is_converted_without_params_and_a_wrong_call_is_one_sentence(tmp_path: Path) -> None:
    small_coco(tmp_path / "my coco")
    call = ("convert", "coco", "--root", "my coco", "--split", "train", "--out", "shards/train", "--workers", "1")
    done = pose_rft(tmp_path, *call)
    assert done.returncode == 0, done.stderr
    assert "coco train: 3 samples in 1 shards" in done.stdout
    report = verify(tmp_path / "shards/train")
    assert report.ok and report.samples == 3
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["train"]
    shown = dict(line.split() for line in pose_rft(tmp_path, "stats", "shards/train").stdout.splitlines())
    assert shown["samples"] == "3" and int(shown["bytes"].replace(",", "")) == sum(
        path.stat().st_size for path in (tmp_path / "shards/train").glob("*.tar")
    )
    wrong = pose_rft(tmp_path, *call, "--executor", "cloud")
    assert wrong.returncode == 2 and "`executor` is 'cloud'" in wrong.stderr and "Traceback" not in wrong.stderr
