"""inventory → convert → validate on a small COCO, in a folder of their own."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml

from pose_rft import params
from pose_rft.batches.examples import ExampleParams
from pose_rft.datasets.names import DATASETS, LABELS, RELEASES, TESTS
from pose_rft.datasets.registry import DataParams
from pose_rft.errors import PoseRftError
from pose_rft.io.lock import alone_in
from pose_rft.shards.convert import convert_release
from pose_rft.shards.plan import ShardParams
from pose_rft.shards.verify import verify
from pose_rft.training.sft import SFTParams
from stages import convert, inventory, sample, shard_sets, validate
from tests.support.beside import beside

REAL = beside("real")


def write_coco(folder: Path, split: str, first: int, pictures: int = 4) -> None:
    """`pictures` JPEGs with two people each."""
    rng = np.random.default_rng(first)
    images, annotations = [], []
    (folder / f"{split}2017").mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for number in range(first, first + pictures):
        name = f"{number:012d}.jpg"
        PIL.Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / f"{split}2017" / name)
        images.append({"id": number, "file_name": name, "width": 32, "height": 24})
        for person in range(2):
            points = np.concatenate([rng.integers(1, 23, (17, 2)), np.full((17, 1), 2)], axis=1)
            annotations.append(
                {
                    "id": 10 * number + person,
                    "image_id": number,
                    "iscrowd": 0,
                    "bbox": [1.0, 1.0, 20.0, 20.0],
                    "keypoints": points.ravel().tolist(),
                }
            )
    content = {"images": images, "annotations": annotations}
    (folder / f"annotations/person_keypoints_{split}2017.json").write_text(json.dumps(content))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path / "releases/coco", "train", 1)
    write_coco(tmp_path / "releases/coco", "val", 100)
    Path("data/sample").mkdir(parents=True)
    Path("data/sample/stamp.json").write_text("{}")
    set_params()
    return tmp_path


def set_params(source: str = "releases", root: str = "releases", **coco: object) -> None:
    content = {
        "data": {"source": source, "root": root, "body_model": "body"},
        "shards": {"samples_per_shard": 4, "executor": "serial", "workers": 1, "jpeg_quality": 92},
        "validate": {"strict": True},
        "datasets": {"coco": {"splits": ["train", "val"], **coco}},
    }
    Path("params.yaml").write_text(yaml.safe_dump(content))


def run() -> None:
    inventory.main([])
    convert.main(["--dataset", "coco"])
    validate.main([])


def test_the_three_stages_make_shards_metrics_and_a_report(project):
    run()
    for split in ("train", "val"):
        assert verify(Path("data/shards/coco") / split).ok
    numbers = json.loads(Path("results/convert/coco.json").read_text())["data"]["coco"]
    assert (numbers["samples"], numbers["defects"], numbers["shards"]) == (16, 0, 4)
    assert numbers["splits"]["val"]["samples"] == 8 and numbers["splits"]["val"]["images"] == 4
    assert json.loads(Path("results/validate/metrics.json").read_text())["validate"]["failed"] == 0
    assert "## coco" in Path("results/validate/report.md").read_text()
    assert not Path(".scratch/convert/coco").exists()


def test_running_everything_again_writes_the_same_bytes(project):
    run()
    first = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    shutil.rmtree("data/shards")
    shutil.rmtree("results")
    run()
    assert first == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_the_inventory_sees_a_changed_file_and_in_the_sample_not_its_time(project):
    def digest() -> str:
        inventory.main([])
        return json.loads(Path("data/inventory/coco.json").read_text())["digest"]

    picture = Path("releases/coco/train2017/000000000001.jpg")
    first = digest()
    assert digest() == first
    os.utime(picture, (1, 1))
    assert digest() != first
    set_params("sample")
    first = digest()
    os.utime(picture, (2, 2))
    assert digest() == first
    Path("data/sample/stamp.json").write_text('{"other": 1}')
    assert digest() != first


def test_a_missing_release_is_one_sentence_that_names_folder_and_source(project):
    set_params(root="elsewhere")
    with pytest.raises(PoseRftError, match=r"folder elsewhere/coco does not exist; get it from https://cocodataset"):
        inventory.main([])
    set_params("sample", root="elsewhere")
    with pytest.raises(PoseRftError, match=r"elsewhere/coco does not exist; run `dvc repro sample`"):
        inventory.main([])


def test_finished_splits_and_shards_survive_a_failure_and_dvcs_clean_up(project):
    picture = Path("releases/coco/val2017/000000000103.jpg")
    whole = picture.read_bytes()
    picture.write_bytes(b"\0" * len(whole))
    os.utime(picture, (1, 1))
    inventory.main([])
    with pytest.raises(PoseRftError, match=r"coco val: 2 of 8 rows are defects .2 × damaged image.*defects.parquet"):
        convert.main(["--dataset", "coco"])
    assert not Path("data/shards/coco").exists() and not Path("results/convert/coco.json").exists()
    scratch = next(Path(".scratch/convert/coco").iterdir())
    train = scratch / "finished/train/manifest.json"
    before = train.stat().st_mtime_ns
    set_params(max_defect_rate=0.5)
    inventory.main([])
    shutil.rmtree("data/shards", ignore_errors=True)  # as DVC does
    convert.main(["--dataset", "coco"])
    assert Path("data/shards/coco/train/manifest.json").stat().st_mtime_ns == before
    numbers = json.loads(Path("results/convert/coco.json").read_text())["data"]["coco"]
    assert (numbers["samples"], numbers["defects"]) == (14, 2)


def test_a_conversion_leaves_alone_what_another_clone_converts_in_the_shared_scratch_folder(project):
    beside = Path(".scratch/convert/coco")
    for name in ("running", "killed", "new"):
        (beside / name).mkdir(parents=True)
        (beside / name / "shard.tar").write_bytes(b"half")
    (beside / "killed/lock").touch()
    inventory.main([])
    with alone_in(beside / "running"):
        convert.main(["--dataset", "coco"])
        assert {path.name for path in beside.iterdir()} == {"running", "new"}, "work of others, or of a killed run"
        assert (beside / "running/shard.tar").read_bytes() == b"half"


def test_a_release_converts_outside_the_pipeline_to_the_same_shards(project):
    run()
    shards = params.load("shards", ShardParams)
    convert_release("coco", "val", Path("outside/val"), params.load("data", DataParams), {}, shards)
    assert [path.name for path in Path("outside").iterdir()] == ["val"]
    for path in Path("outside/val").glob("0*"):
        assert path.read_bytes() == (Path("data/shards/coco/val") / path.name).read_bytes()


def test_validate_fails_on_a_damaged_shard_and_names_it(project):
    run()
    shard = Path("data/shards/coco/train/00001.tar")
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(PoseRftError, match=r"1 of \d+ checks .* coco train, damaged = 1.*00001.tar is damaged"):
        validate.main([])
    assert "failed" in Path("results/validate/report.md").read_text()


def test_validate_without_shards_is_one_sentence(project):
    with pytest.raises(PoseRftError, match=r"data/shards/coco holds no split; run `dvc repro convert@coco`"):
        validate.main([])


def test_validate_finds_a_picture_in_two_splits(project):
    shutil.copy("releases/coco/train2017/000000000001.jpg", "releases/coco/val2017/000000000100.jpg")
    with pytest.raises(PoseRftError, match=r"coco train\+val, shared pictures = 1, expected 0"):
        run()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real COCO subset is not beside the project")
def test_the_real_coco_subset_converts_and_verifies(project):
    set_params(root=str(REAL), splits=["val"], body_joints=0)
    run()
    numbers = json.loads(Path("results/convert/coco.json").read_text())["data"]["coco"]
    assert numbers["samples"] >= 5 and numbers["defects"] == 0


@pytest.mark.parametrize("source", ["releases", "sample"])
def test_a_data_set_that_params_leave_out_gets_a_mark_in_place_of_shards(project, source):  # A13
    set_params(source)
    inventory.main([])
    convert.main(["--dataset", "mpii"])
    assert json.loads(Path("results/convert/mpii.json").read_text()) == {"data": {}}
    assert shard_sets.is_left_out("mpii") and shard_sets.is_left_out("mpii/train")
    convert.main(["--dataset", "coco"])
    validate.main([])
    assert not shard_sets.is_left_out("coco/train")
    assert shard_sets.of_this_run(["coco/train", "mpii/train"], "a test") == ["coco/train"]
    assert shard_sets.of_this_run(["coco/test"], "a test") == ["coco/test"]  # a split that is missing is a mistake,
    assert shard_sets.of_this_run(["coco/test"], "a test", optional=True) == []  # unless it is one of several tests


def test_mixtures_lose_what_is_left_out_and_refuse_what_is_unknown(project):  # A13
    inventory.main([])
    for name in ("mpii", "posescript", "3dpw"):
        convert.main(["--dataset", name])
    known = params.load("sft", SFTParams, Path(__file__).parents[2] / "presets/micro.yaml")

    def sft(**mixture):
        return known.model_copy(update={"examples": ExampleParams(mixture=mixture)})

    run = shard_sets.training_of_this_run(sft(image_pose={"coco": 1, "mpii": 2}, text_pose={"posescript": 1}), "sft")
    assert run.examples.datasets() == ["coco"] and run.heldout.text_pose == {}
    assert run.heldout.image_pose == {"h36m": "p2"}  # never converted, which is no reason to drop it silently
    with pytest.raises(PoseRftError, match=r"`datasets` leaves out all data sets of `sft.examples.mixture`"):
        shard_sets.training_of_this_run(sft(image_pose={"mpii": 1}), "sft")
    with pytest.raises(PoseRftError, match=r"`sft.examples.mixture` names 'cocoo'; known data sets are h36m"):
        shard_sets.training_of_this_run(sft(image_pose={"cocoo": 1}), "sft")


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        ({"coco; touch x": {}}, "names 'coco; touch x'; known data sets are"),
        ({"../../docs": {}}, "known data sets are"),
        ({"coco": {}, 3: {}}, "names 3; known data sets are"),
        (["coco"], "names no data set"),
        (None, "names no data set"),
        ({"coco": "train"}, r"`datasets.coco` is 'train'"),
    ],
)
@pytest.mark.parametrize("source", ["releases", "sample"])
def test_names_that_are_no_data_sets_are_refused_by_the_first_stages(project, source, datasets, words):  # S7, A13
    set_params(source)
    content = yaml.safe_load(Path("params.yaml").read_text()) | {"datasets": datasets}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    for stage in (inventory, sample):
        with pytest.raises(PoseRftError, match=words):
            stage.main([])
    assert not Path("data/inventory").exists()


def test_dvc_lists_the_data_sets_that_have_a_reader_and_takes_no_name_from_params():  # S7
    root = Path(__file__).parents[2]
    graph = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    assert tuple(graph["convert"]["foreach"]) == DATASETS == (*RELEASES, *LABELS, *TESTS)
    interpolated = set(re.findall(r"\$\{([^}]+)\}", (root / "dvc.yaml").read_text()))
    assert interpolated == {"item", "data.body_model"}
