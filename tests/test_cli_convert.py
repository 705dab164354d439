"""`pose-rft shards convert`: conversion outside the pipeline, in a folder without params.yaml."""

import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose_rft.datasets.by_hand import one_split
from pose_rft.errors import PoseRftError
from pose_rft.io.atomic import write_json
from pose_rft.shards.verify import verify

pytestmark = pytest.mark.pipeline

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
    for nameless in (".", "..", "/"):
        wrong = pose_rft(tmp_path, *call, "--out", nameless)
        assert wrong.returncode == 2 and "give a name" in wrong.stderr and "Traceback" not in wrong.stderr


PARAMS = "datasets: {coco: {splits: [train], fits: [{source: eft, path: eft/COCO2014-All-ver01.json}]}}\n"


def test_a_bare_folder_converts_without_the_fits_that_params_name(tmp_path: Path) -> None:  # C16
    small_coco(tmp_path / "coco")
    (tmp_path / "params.yaml").write_text(PARAMS)
    call = ("convert", "coco", "--root", "coco", "--split", "train2017", "--out", "out", "--executor", "serial")
    without = pose_rft(tmp_path, *call)
    assert without.returncode == 2 and "--no-fits" in without.stderr and "Traceback" not in without.stderr
    done = pose_rft(tmp_path, *call, "--no-fits")
    assert done.returncode == 0 and "coco train: 3 samples" in done.stdout, done.stderr


def label_file(folder: Path) -> None:
    """Two people of two pictures in SPIN's fields (those of `test_h36m.npz`), without bodies."""
    rng = np.random.default_rng(0)
    names = [f"S1_Directions_1.54138969_{number:06d}.jpg" for number in (1, 6)]
    folder.mkdir()
    for name in names:
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    part = np.concatenate([rng.uniform(5, 40, (2, 24, 2)), np.ones((2, 24, 1))], axis=2)
    np.savez(folder / "test_h36m.npz", imgname=names, center=[[30.0, 20.0]] * 2, scale=[0.2, 0.2], part=part)


def test_label_files_convert_from_the_command_line(tmp_path: Path) -> None:  # C12
    label_file(tmp_path / "labels")
    call = ("convert", "label_files", "--root", "labels", "--split", "test_h36m", "--executor", "serial")
    done = pose_rft(tmp_path, *call, "--out", "by_name")
    assert done.returncode == 0 and "label_files test_h36m: 2 samples" in done.stdout, done.stderr
    (tmp_path / "pictures").mkdir()
    for picture in (tmp_path / "labels").glob("*.jpg"):
        picture.rename(tmp_path / "pictures" / picture.name)
    elsewhere = ("--labels", "labels/test_h36m.npz", "--images", "pictures", "--out", "elsewhere")
    done = pose_rft(tmp_path, *call, *elsewhere)
    assert done.returncode == 0 and verify(tmp_path / "elsewhere").samples == 2, done.stderr
    wrong = pose_rft(tmp_path, "convert", "coco", "--root", ".", "--split", "train", *elsewhere)
    assert wrong.returncode == 2 and "go with label_files" in wrong.stderr


def test_tars_convert_from_the_command_line_by_the_name_of_their_folder(tmp_path: Path) -> None:  # C12
    person = {"center": [30.0, 20.0], "scale": 40.0, "keypoints_2d": np.full((44, 3), 20.0)}
    picture = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    path = tmp_path / "dataset_tars/aic-train/000000.tar"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.jpg", picture), ("a.data.pyd", pickle.dumps([person], 2))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    call = ("convert", "hmr2_tars", "--root", "dataset_tars", "--split", "aic-train", "--out", "out")
    done = pose_rft(tmp_path, *call, "--executor", "serial")
    assert done.returncode == 0 and "hmr2_tars aic-train: 1 samples" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("dataset", "split", "words"),
    [
        ("coco", "test", "coco has no split 'test'; choose from train, val"),  # C16
        ("h36m", "val", "choose from train, p1, p2"),
        ("../../docs", "train", "known data sets are h36m"),  # S7
    ],
)
def test_what_does_not_exist_is_told_with_the_right_words(tmp_path: Path, dataset: str, split: str, words: str) -> None:
    known: dict[str, object] = {}
    with pytest.raises(PoseRftError, match=words):
        one_split(dataset, split, tmp_path, known)


def test_params_say_how_to_read_what_the_command_line_names(tmp_path: Path) -> None:
    known = {"files": {"a": {"path": "x/a.npz", "images": "pics", "gender": "male"}, "b": {"path": "b", "images": "b"}}}
    split, choices = one_split("label_files", "a", tmp_path, known)
    assert split == "a" and choices["files"] == {"a": {"path": "x/a.npz", "images": "pics", "gender": "male"}}
    assert one_split("coco", "val2014", tmp_path, {"body_joints": 0})[1] == {
        "body_joints": 0, "root": str(tmp_path), "year": 2014, "splits": ["val"],
    }  # fmt: skip
    with pytest.raises(PoseRftError, match="bedlam takes no SMPL fits"):
        one_split("bedlam", "train", tmp_path, {}, fits=False)
