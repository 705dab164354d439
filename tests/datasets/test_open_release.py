import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pose_rft.datasets.names import LABELS, RELEASES, TESTS, reader_module
from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.errors import PoseRftError


def data(root: Path, source: str = "releases") -> DataParams:
    return DataParams(source=source, root=root, body_model=root / "body_models")


@pytest.mark.parametrize("name", RELEASES + LABELS + TESTS)
def test_a_missing_release_names_its_folder_and_where_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(PoseRftError) as problem:
        open_release(name, data(tmp_path), {name: {}}, 92)
    sentence = str(problem.value)
    assert str(tmp_path) in sentence and "http" in sentence and "licence" in sentence
    with pytest.raises(PoseRftError, match="sample stage"):
        open_release(name, data(tmp_path, "sample"), {name: {}}, 92)


@pytest.mark.parametrize("name", RELEASES + LABELS + TESTS)
def test_readers_travel_to_workers(tmp_path: Path, name: str) -> None:
    (tmp_path / "here").mkdir()
    release = open_release(name, data(tmp_path), {name: {"root": "here"}}, 92)
    assert pickle.loads(pickle.dumps(release)).dataset == release.dataset == name
    assert release.licence and release.where_to_get


def test_unknown_data_sets_and_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PoseRftError, match="known data sets are h36m"):
        open_release("imagenet", data(tmp_path), {}, 92)
    with pytest.raises(PoseRftError, match="did you mean `year`"):
        open_release("coco", data(tmp_path), {"coco": {"yaer": 2017}}, 92)
    with pytest.raises(PoseRftError, match=r"`datasets\.llava_instruct`.*heldout_percent"):
        open_release("llava_instruct", data(tmp_path), {"llava_instruct": {"heldout_percent": 120}}, 92)


def test_an_absolute_root_lies_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    params = {"coco": {"root": str(tmp_path / "elsewhere")}}
    release = open_release("coco", data(tmp_path / "nothing"), params, 92)
    assert release.inventory() == []


def test_converting_and_validating_start_without_torch() -> None:
    """Its import takes longer than converting a small release, and each worker would pay for it."""
    modules = ["stages.convert", "stages.validate", *map(reader_module, RELEASES)]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "smplx", "roma", "transformers"} & set(done.stdout.split())
