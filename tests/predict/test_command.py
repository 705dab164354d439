"""`pose-rft predict`: what is wrong is said before the model loads, and one bad input does not cost the others."""

import json
import os

import cv2
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.predict.command import Inputs, check, run


@pytest.fixture
def start(tmp_path, policy_folder, tiny_folder, answering):
    """Predicts; returns (went well, {stem: content})."""

    def go(paths=(), sentences=(), box="20,10,60,60", boxes=None, samples=0):
        inputs = check(Inputs(list(paths), list(sentences), None if boxes else box, boxes, tmp_path / "out"))
        well = run(inputs, policy_folder, tiny_folder, 0, samples, "obj")
        return well, {p.stem: json.loads(p.read_text()) for p in (tmp_path / "out").glob("*.json")}

    return go


def save(path, picture):
    ok, data = cv2.imencode(".png", picture)
    assert ok
    path.write_bytes(data.tobytes())
    return path


def test_a_photograph_and_a_sentence_become_json_mesh_and_picture(start, tmp_path, picture):
    well, found = start([save(tmp_path / "a.png", picture)], ["he stands"], samples=2)
    assert well and set(found) == {"a", "text_0"}
    for stem, content in found.items():
        assert len(content["rotation_matrices"]) == 24 and len(content["samples_rotation_matrices"]) == 2
        assert all((tmp_path / "out" / f"{stem}.{kind}").stat().st_size > 0 for kind in ("obj", "png"))
    assert "guess" in found["a"]["camera"]["focal_length_from"] and found["text_0"]["camera"] is None


def test_a_bad_picture_is_named_and_the_others_are_predicted(start, tmp_path, picture, capsys):  # C7
    (tmp_path / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    good = [save(tmp_path / name, picture) for name in ("a.png", "b.png")]
    well, found = start([good[0], tmp_path / "half.jpg", tmp_path / "gone.jpg", good[1]])
    said = capsys.readouterr().err
    assert not well and set(found) == {"a", "b"}
    assert said.count("error:") == 2 and "half.jpg" in said and "gone.jpg" in said


def test_no_readable_picture_ends_before_the_model_loads(tmp_path):
    (tmp_path / "half.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(PoseRftError, match=r"half\.jpg"):
        check(Inputs([tmp_path / "half.jpg"], [], None, None, tmp_path / "out"))


def test_inputs_of_the_same_name_keep_results_of_their_own(start, tmp_path, picture):  # A6
    paths = []
    for folder, name in (("x", "a.png"), ("y", "a.png"), ("x", "text_0.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        paths.append(save(tmp_path / folder / name, picture))
    _, found = start(paths, ["he stands"])
    assert len(found) == 4 and len({content["source"] for content in found.values()}) == 4


def test_a_file_name_that_is_no_utf8_is_predicted(start, tmp_path, picture):  # B4
    path = save(tmp_path / os.fsdecode(b"caf\xe9.png"), picture)
    well, found = start([path])
    assert well and [content["source"] for content in found.values()] == [f"{tmp_path}/caf�.png"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("broken \udce9 byte", "no valid UTF-8 at character 8"),  # B4
        ("half an emoji \ud83d", "no valid UTF-8"),  # B4
        ("word " * 2000, "has 2000 words, expected at most"),  # C10
        ("  ", "is empty"),
    ],
)
def test_a_text_that_is_none_is_one_short_sentence(tmp_path, text, said):
    with pytest.raises(PoseRftError, match=said) as caught:
        check(Inputs([], [text], None, None, tmp_path / "out"))
    assert len(str(caught.value)) < 200


def test_a_box_outside_the_picture_fails_that_picture(start, tmp_path, picture, capsys):  # A7
    rows = [{"image_id": 1, "bbox": [500, 0, 9, 9]}, {"image_id": 2, "bbox": [0, 0, 50, 80]}]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": rows}))
    paths = [save(tmp_path / name, picture) for name in ("a.png", "b.png")]
    well, found = start(paths, boxes=tmp_path / "boxes.json")
    assert not well and set(found) == {"b"} and "lies outside" in capsys.readouterr().err


def test_a_picture_without_a_person_says_so_and_the_others_go_on(start, tmp_path, picture, capsys, monkeypatch):
    from pose_rft.predict.predictor import Predictor

    monkeypatch.setattr(Predictor, "network", type("Blind", (), {"glance": None})())
    monkeypatch.setattr(Predictor, "detector", lambda self, pixels=None: [])
    well, found = start([save(tmp_path / "empty.png", picture)], ["he stands"], box=None)
    assert not well and set(found) == {"text_0"}
    assert "empty.png shows no person" in capsys.readouterr().err
