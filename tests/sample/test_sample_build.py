import hashlib
import json
from pathlib import Path

import pytest

from pose_rft.datasets.names import RELEASES
from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.errors import PoseRftError
from pose_rft.sample import build, write_coco, write_llava, write_posescript
from pose_rft.sample.people import Studio
from pose_rft.sample.stamp import stamp
from tests.support.small_sample import small_sample

PARAMS = small_sample(size=64, train=12, val=4, poses=25, dialogues=14)


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def write(root: Path, results: dict[str, list]) -> dict[str, str]:
    for release, own in results.items():
        build._writer(build.WRITERS[release]).finish(PARAMS, 1, own, root)
    return digests(root)


@pytest.mark.parametrize("release", ["coco", "bedlam", "posescript"])
def test_the_order_of_work_changes_no_byte(
    release: str, tmp_path: Path, standin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_coco, "PICTURES_PER_TASK", 6)
    monkeypatch.setattr(write_posescript, "FILES_PER_TASK", 1)
    writer, studio = build._writer(build.WRITERS[release]), Studio(standin_folder)
    tasks = writer.tasks(PARAMS, 1)
    assert len(tasks) > 1
    forward = {t.index: writer.render(t, PARAMS, 1, studio, tmp_path / "a") for t in tasks}
    backward = {t.index: writer.render(t, PARAMS, 1, Studio(standin_folder), tmp_path / "b") for t in reversed(tasks)}
    first = write(tmp_path / "a", {release: [forward[t.index] for t in tasks]})
    assert first == write(tmp_path / "b", {release: [backward[t.index] for t in tasks]})


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(tmp_path: Path, standin_folder: Path) -> None:
    found = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        params = PARAMS.model_copy(update={"processes": processes})
        results = build.render_all(params, 1, standin_folder, root)
        assert list(results) == list(build.WRITERS)
        found.append(write(root, results))
    assert found[0] == found[1] and len(found[0]) > 100


@pytest.mark.slow
def test_the_whole_sample_can_be_read(tmp_path: Path) -> None:
    out = tmp_path / "sample"
    build.build_sample(PARAMS, 1, out, ["USER: show the <POSE>."])
    data = DataParams(source="sample", root=out / build.RELEASES, body_model=out / build.BODY_MODELS)
    splits = {"3dpw": "test", "posescript": "test", "bedlam": "val"}
    for name in RELEASES:
        params = {name: {"smallest_box": 20} if name == "bedlam" else {}}
        assert open_release(name, data, params, 92).units(splits.get(name, "train")), name
    content = json.loads((out / "stamp.json").read_text())
    assert content["source"] == "sample" and content["files"] > 100
    (out / "stamp.json").unlink()
    assert stamp("sample", 1, out) == content


def test_dialogues_repeat_ids_and_are_as_many_as_asked(tmp_path: Path, standin_folder: Path) -> None:
    writer, studio = build._writer("write_coco"), Studio(standin_folder)
    pictures = [p for t in writer.tasks(PARAMS, 1) for p in writer.render(t, PARAMS, 1, studio, tmp_path)]
    rows = write_llava.records(PARAMS, 1, pictures)
    assert len(rows) <= 14 and len({row["id"] for row in rows}) < len(rows)
    for row in rows:
        assert (tmp_path / "coco" / "train2017" / row["image"]).is_file()
        first, *rest = [turn["value"] for turn in row["conversations"]]
        assert first.count("<image>") == 1 and not any("<image>" in text for text in rest)


def test_an_error_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        folder.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "build_standin", full)
    with pytest.raises(PoseRftError, match="No space left on device"):
        build.build_sample(PARAMS, 1, tmp_path / "sample", [])
    assert list(tmp_path.iterdir()) == []


def test_the_stamp_changes_with_any_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = stamp("sample", 1, tmp_path)
    (tmp_path / "a").write_text("2")
    assert stamp("sample", 1, tmp_path) != before
    assert stamp("releases", 1) == {"source": "releases", "seed": 1}
