"""`pose-rft predict`: what is wrong is said before the model loads, and one bad input does not cost the others."""

import json
import os
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from pose_rft.errors import PoseRftError
from pose_rft.predict import film, overlays
from pose_rft.predict.command import Request, check
from pose_rft.predict.photographs import read_photograph
from pose_rft.predict.prediction import Prediction
from pose_rft.predict.predictor import Looked, Predictor
from pose_rft.predict.store import Store
from pose_rft.predict.table import INNER, PLAIN
from pose_rft.record import Box
from tests.predict.conftest import save


def test_a_photograph_and_a_sentence_become_lines_pictures_and_exports(start, tmp_path, picture):
    well, found = start(
        [save(tmp_path / "a.png", picture)],
        ["he stands"],
        samples=2,
        overlay=True,
        export=["glb", "bvh", "amass", "obj"],
    )
    assert well and [content["name"] for content in found] == ["text_0", "a"]
    for content in found:
        assert (content["schema"], content["version"]) == ("pose-rft/prediction", 1)
        assert len(content["rotation_matrices"]) == 24 and len(content["samples_rotation_matrices"]) == 2
        files = (f"{content['name']}.{kind}" for kind in ("png", "glb", "bvh", "npz", "obj"))
        assert all((tmp_path / "out" / file).stat().st_size > 0 for file in files)
    assert "guess" in found[1]["camera"]["focal_length_from"] and found[0]["camera"] is None


def test_a_batch_is_what_one_by_one_is(tmp_path, policy_folder, tiny_folder, answering, picture):
    predictor = Predictor(policy_folder, tiny_folder)
    photographs = [read_photograph(save(tmp_path / f"{i}.png", np.roll(picture, 9 * i, 1))) for i in range(3)]
    boxes = [[Box((40 + 5 * i, 40), 30 + 9 * j, "given") for j in range(i + 1)] for i in range(3)]
    alone = [predictor.photograph(one, own, 3) for one, own in zip(photographs, boxes, strict=True)]
    looked = [Looked(one, predictor.see(one, own)) for one, own in zip(photographs, boxes, strict=True)]
    for own, together in zip(alone, predictor.people(looked, 3), strict=True):
        for a, b in zip(own, together, strict=True):
            for name in ("rotations", "samples", "joints", "vertices", "spread", "std"):
                assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-4), name
            assert np.allclose(a.place.transl, b.place.transl, atol=1e-4) and a.answer == b.answer


def test_a_bad_picture_is_named_and_the_others_are_predicted(start, tmp_path, picture, seeing, capsys):  # C7
    (tmp_path / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    cut = save(tmp_path / "cut.png", picture)  # its head is fine
    cut.write_bytes(cut.read_bytes()[:200])
    good = [save(tmp_path / name, picture) for name in ("a.png", "b.png")]
    well, found = start([good[0], tmp_path / "half.jpg", cut, tmp_path / "gone.jpg", good[1]], box=None)
    said = capsys.readouterr().err
    assert not well and {content["name"] for content in found} == {"a", "b"}
    assert said.count("error:") == 3 and all(name in said for name in ("half.jpg", "gone.jpg", "cut.png"))


def test_no_readable_picture_ends_before_anything_is_written(tmp_path):
    (tmp_path / "half.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(PoseRftError, match=r"half\.jpg"):
        check(Request([str(tmp_path / "half.jpg")], [], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_folders_patterns_and_lists_name_their_pictures_once(start, tmp_path, picture, seeing):
    for name in ("in/a.png", "in/b.PNG", "in/[c].png", "other/d.png"):
        save(tmp_path / name, picture)
    (tmp_path / "in/notes.txt").write_text("no picture")
    named = [tmp_path / "in", tmp_path / "in/*.png", tmp_path / "in/[c].png", "-"]
    _, found = start(named, box=None, stdin=[f"{tmp_path}/other/d.png\n", "\n", f"{tmp_path}/in/a.png\n"])
    assert {content["name"] for content in found} == {"[c]", "a", "b", "d"} and len(found) == 8


def test_results_in_a_folder_of_inputs_are_no_inputs(start, tmp_path, picture, seeing):
    save(tmp_path / "a.png", picture)
    for _ in range(2):
        _, found = start([tmp_path], box=None, overlay=True)
        assert len(found) == 2


@pytest.mark.parametrize("argument", ["empty", "empty/*.jpg"])
def test_a_folder_or_pattern_without_pictures_says_so(tmp_path, argument):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoseRftError, match="holds no photograph and no video"):
        check(Request([str(tmp_path / argument)], [], tmp_path / "out"))


def test_inputs_of_the_same_name_keep_results_of_their_own(start, tmp_path, picture, seeing):  # A6
    paths = [save(tmp_path / name, picture) for name in ("x/a.png", "y/a.png", "x/text_0.png")]
    _, found = start(paths, ["he stands"], box=None)
    assert len({content["source"] for content in found}) == len({content["name"] for content in found}) == 4


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_an_input_is_told_and_noted_as_finished_once_whatever_the_batch(
    start, tmp_path, picture, seeing, film_file, capsys, batch
):
    paths = [save(tmp_path / name, picture) for name in ("a.png", "b.png", "c.png")]
    start([*paths, film_file], ["he stands"], box=None, batch=batch, every=6)
    noted = [json.loads(line) for line in (tmp_path / "out/inputs.jsonl").read_text().splitlines()]
    finished = [line["input"] for line in noted if line.get("event") == "finished"]
    assert len(finished) == len(set(finished)) == 5
    assert capsys.readouterr().out.count("found") == 5


def test_a_second_run_adds_and_never_replaces(start, tmp_path, picture, capsys):
    first = save(tmp_path / "a.png", picture)
    start([first], overlay=True)
    before, drawn = (tmp_path / "out/predictions.jsonl").read_bytes(), (tmp_path / "out/a.png").read_bytes()
    start([first], overlay=True)
    assert "is there already, 1 found" in capsys.readouterr().out
    assert (tmp_path / "out/predictions.jsonl").read_bytes() == before
    save(first, 255 - picture)  # another picture under the same name
    _, found = start([first], overlay=True)
    assert [content["name"] for content in found] == ["a", "a-2"]
    assert (tmp_path / "out/predictions.jsonl").read_bytes().startswith(before)
    assert (tmp_path / "out/a.png").read_bytes() == drawn
    _, found = start([first], overlay=True, samples=1)  # another wish is another result
    assert len(found) == 3
    _, found = start([first], overlay=True, samples=1, overwrite=True)
    assert [content["name"] for content in found] == ["a", "a-2", "a-3"]


def test_a_run_that_finds_all_done_loads_no_model(start, tmp_path, picture, monkeypatch):
    path = save(tmp_path / "a.png", picture)
    start([path])
    monkeypatch.setattr(Predictor, "__init__", None)
    assert start([path])[0]


def test_people_of_a_video_keep_their_number(start, film_file, seeing):
    well, found = start([film_file], box=None, every=2)
    assert well and [line["frame"] for line in found[::2]] == [0, 2, 4, 6, 8, 10]
    assert [line["track"] for line in found] == [0, 1] * 6
    assert [line["time_seconds"] for line in found[::2]] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize("share", [0.02, 0.3, 0.61, 0.97, 1.0])
def test_a_killed_video_goes_on_where_it_was(start, film_file, seeing, tmp_path, monkeypatch, share):
    _, expected = start([film_file], box=None, smooth=0.2)
    out = tmp_path / "out"
    whole = (out / "predictions.jsonl").read_bytes()
    (out / "predictions.jsonl").write_bytes(whole[: int(share * len(whole))])
    begun = (out / "inputs.jsonl").read_bytes().splitlines(keepends=True)[0]
    (out / "inputs.jsonl").write_bytes(begun)
    kept = [line for line in expected if line["frame"] < int(share * 12) - 1]
    decoded = []
    plain = film.video.frames
    monkeypatch.setattr(film.video, "frames", lambda path, **k: (decoded.append(f[0]) or f for f in plain(path, **k)))
    well, found = start([film_file], box=None, smooth=0.2)
    assert well and len(found) == len(expected) == 24
    assert not {line["frame"] for line in kept} & {*decoded}  # what was there is not predicted again
    for a, b in zip(found, expected, strict=True):
        assert (a["frame"], a["track"]) == (b["frame"], b["track"])
        assert np.allclose(a["rotation_matrices"], b["rotation_matrices"], atol=1e-4)


def test_a_film_that_has_no_frame_of_its_last_line_is_not_taken_for_done(start, film_file, seeing, tmp_path, capsys):
    start([film_file], box=None, every=2)
    out = tmp_path / "out"
    rows = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join(rows[:2]).replace(b'"frame":0,', b'"frame":99999999,'))
    (out / "inputs.jsonl").write_bytes((out / "inputs.jsonl").read_bytes().splitlines(keepends=True)[0])
    well, _ = start([film_file], box=None, every=2)
    assert not well and "has no frame 99999999" in capsys.readouterr().err
    assert b"finished" not in (out / "inputs.jsonl").read_bytes()


def test_a_damaged_line_costs_its_own_export_alone(start, tmp_path, picture, seeing, capsys):
    paths = [save(tmp_path / name, picture) for name in ("a.png", "b.png")]
    start(paths, box=None, most=1)
    rows = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    damaged = json.dumps(json.loads(rows[0]) | {"rotation_matrices": [[1.0]]}, separators=(",", ":"))
    (tmp_path / "out/predictions.jsonl").write_text(f"{damaged}\n{rows[1]}\n")
    assert not start(paths, box=None, most=1, export=["glb"])[0]
    assert [file.name for file in (tmp_path / "out").glob("*.glb")] == [f"{json.loads(rows[1])['name']}.glb"]
    assert capsys.readouterr().err.count("error:") == 1


def test_a_films_pictures_do_not_pile_up(start, film_file, seeing, monkeypatch):
    decoded, written, most = [0], [0], [0]
    plain, add = film.video.frames, Store.add

    def counted(path, **choices):
        for item in plain(path, **choices):
            decoded[0] += 1
            most[0] = max(most[0], decoded[0] - written[0])
            yield item

    monkeypatch.setattr(film.video, "frames", counted)
    monkeypatch.setattr(Store, "add", lambda self, rows: (add(self, rows), written.__setitem__(0, written[0] + 1)))
    start([film_file], box=None, batch=4)
    assert written == [12] and most[0] <= 3  # two people each


def test_a_damaged_film_keeps_its_good_frames_and_is_named(start, film_file, seeing, capsys, monkeypatch):
    def broken(path, **choices):
        for frame, pixels in plain(path, **choices):
            if frame == 7:
                raise PoseRftError(f"{path} is damaged at frame 7; download it again.")
            yield frame, pixels

    plain = film.video.frames
    monkeypatch.setattr(film.video, "frames", broken)
    well, found = start([film_file], box=None, overlay=True)
    assert not well and len(found) == 14 and "damaged at frame 7" in capsys.readouterr().err
    assert len([*film_file.with_name("out").glob("film_overlay/*.jpg")]) == 7


def test_only_the_surest_are_kept_where_a_number_is_named(start, tmp_path, picture, seeing):
    _, found = start([save(tmp_path / "a.png", picture)], box=None, most=1)
    assert [content["person"]["score"] for content in found] == [0.9]


def test_a_table_has_a_row_for_each_line(start, tmp_path, picture, film_file, seeing):
    _, found = start([save(tmp_path / "a.png", picture), film_file], ["he stands"], box=None, samples=1, table=True)
    table = pl.read_parquet(tmp_path / "out/predictions.parquet")
    assert table.height == len(found) == 27 and table["track"].to_list() == [line["track"] for line in found]
    assert np.allclose(table["rotation_matrices"].to_list(), [line["rotation_matrices"] for line in found])


def test_a_file_name_that_is_no_utf8_is_predicted(start, tmp_path, picture):  # B4
    well, found = start([save(tmp_path / os.fsdecode(b"caf\xe9.png"), picture)], overlay=True)
    assert well and [content["source"] for content in found] == [f"{tmp_path}/caf�.png"]


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
        check(Request([], [text], tmp_path / "out"))
    assert len(str(caught.value)) < 200


def test_a_box_outside_the_picture_fails_that_picture(start, tmp_path, picture, capsys):  # A7
    rows = [{"image_id": 1, "bbox": [500, 0, 9, 9]}, {"image_id": 2, "bbox": [0, 0, 50, 80]}]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": rows}))
    paths = [save(tmp_path / name, picture) for name in ("a.png", "b.png", "c.png")]
    well, found = start(paths, boxes=tmp_path / "boxes.json")
    said = capsys.readouterr().err
    assert not well and [content["name"] for content in found] == ["b"]
    assert "lies outside" in said and "lists no person in" in said


def test_a_picture_without_a_person_says_so_and_the_others_go_on(start, tmp_path, picture, capsys, monkeypatch):
    monkeypatch.setattr(Predictor, "network", type("Blind", (), {"glance": None})())
    monkeypatch.setattr(Predictor, "detector", lambda self, pixels=None: [])
    well, found = start([save(tmp_path / "empty.png", picture)], ["he stands"], box=None)
    assert not well and [content["name"] for content in found] == ["text_0"]
    assert "empty.png shows no person" in capsys.readouterr().err


def test_weights_that_give_no_numbers_are_one_sentence(policy_folder, tiny_folder, answering):  # S21
    predictor = Predictor(policy_folder, tiny_folder)
    with torch.no_grad():
        for weight in predictor.model.pose_head.parameters():
            weight.fill_(float("nan"))
    with pytest.raises(PoseRftError, match="weights are damaged"):
        predictor.text("he stands")


def test_an_answer_without_a_pose_fails_its_own_picture_and_is_made_no_body(
    policy_folder, tiny_folder, answering, tmp_path, picture, monkeypatch
):
    predictor = Predictor(policy_folder, tiny_folder)
    photographs = [read_photograph(save(tmp_path / f"{name}.png", picture)) for name in "ab"]
    looked = [Looked(one, predictor.see(one, [Box((40, 40), 30, "given")])) for one in photographs]
    ask = predictor._ask

    def silent(*arguments):
        answers, poses, _ = ask(*arguments)
        poses.mean[0] = float("nan")  # what stands where no pose was said is anything
        return answers, poses, [False, True]

    monkeypatch.setattr(predictor, "_ask", silent)
    one, other = predictor.people(looked)
    assert isinstance(one, PoseRftError) and "without a pose" in str(one)
    assert not isinstance(other, PoseRftError) and torch.isfinite(other[0].vertices).all()


@pytest.mark.parametrize("lie", [{"dtype": "float16"}, {"mean_scale": 10**30}], ids=str)
def test_a_policy_that_would_fail_at_the_first_picture_fails_when_it_is_loaded(
    policy_folder, tiny_folder, tmp_path, lie
):
    own = tmp_path / "policy"
    shutil.copytree(policy_folder, own)
    content = json.loads((own / "config.json").read_text())
    (content["llava"]["text_config"] if "dtype" in lie else content).update(lie)
    (own / "config.json").write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match="holds a policy that cannot be loaded"):
        Predictor(own, tiny_folder)


def test_a_line_is_the_prediction_that_it_was_made_of(tmp_path, policy_folder, tiny_folder, answering, picture):
    predictor = Predictor(policy_folder, tiny_folder)
    photograph = read_photograph(save(tmp_path / "a.png", picture))
    found = [*predictor.photograph(photograph, [Box((40, 40), 30, "given")], 2), predictor.text("he stands", 1)]
    for one in found:
        line = one.content(policy_folder, predictor.body)
        again = Prediction.of_line(line, predictor.body)
        assert torch.allclose(again.vertices, one.vertices, atol=1e-4)
        for a, b in zip(flat(again.content(policy_folder, predictor.body)), flat(line), strict=True):
            assert a == (pytest.approx(b, abs=2e-5) if isinstance(b, float) else b)


def flat(content):
    if isinstance(content, dict | list):
        values = content.values() if isinstance(content, dict) else content
        return [number for value in values for number in flat(value)]
    return [content]


def test_overlays_asked_for_later_are_those_of_a_run_that_asked_at_once(
    start, tmp_path, picture, film_file, seeing, monkeypatch
):
    asked = [save(tmp_path / "a.png", picture), film_file], ["he stands"]
    start(*asked, box=None, every=4, overlay=True)
    files = {file.name: file.read_bytes() for file in sorted((tmp_path / "out").rglob("*.[jp][pn]g"))}
    assert set(files) == {"a.png", "text_0.png", "000000.jpg", "000004.jpg", "000008.jpg"}
    shutil.rmtree(tmp_path / "out")
    start(*asked, box=None, every=4)
    assert not [*(tmp_path / "out").rglob("*.[jp][pn]g")]
    monkeypatch.setattr(Predictor, "__init__", None)  # nothing is predicted again
    start(*asked, box=None, every=4, overlay=True)
    assert files == {file.name: file.read_bytes() for file in sorted((tmp_path / "out").rglob("*.[jp][pn]g"))}


def test_what_a_user_changed_stays_unless_overwritten(start, tmp_path, picture, capsys):
    path, out = save(tmp_path / "a.png", picture), tmp_path / "out"
    wishes = {"overlay": True, "export": ["glb", "obj"]}
    assert start([path], **wishes)[0]
    made = {name: (out / name).read_bytes() for name in ("a.png", "a.glb", "a.obj")}
    for name in ("a.png", "a.glb"):
        (out / name).write_bytes(b"mine")
    assert not start([path], **wishes)[0]
    assert "a.glb is there with another content and stays" in capsys.readouterr().err
    assert (out / "a.png").read_bytes() == (out / "a.glb").read_bytes() == b"mine"
    assert start([path], overwrite=True, **wishes)[0]
    assert made == {name: (out / name).read_bytes() for name in made}


def test_a_picture_that_is_gone_costs_the_others_no_overlay(start, tmp_path, picture, seeing, capsys, monkeypatch):
    paths = [save(tmp_path / name, picture) for name in ("a.png", "b.png")]
    start(paths, box=None)
    plain = overlays.read_photograph

    def vanishing(path):
        if path.name == "a.png":
            path.unlink()
        return plain(path)

    monkeypatch.setattr(overlays, "read_photograph", vanishing)
    well, _ = start(paths, box=None, overlay=True)
    assert not well and "a.png cannot be read" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").glob("*.png")] == ["b.png"]


def test_only_a_video_says_that_it_was_smoothed(start, tmp_path, picture, film_file, seeing):
    _, found = start([save(tmp_path / "a.png", picture), film_file], ["he stands"], box=None, smooth=0.2)
    assert {line["kind"]: line["smoothed_seconds"] for line in found} == {
        "photograph": None,
        "text": None,
        "video": 0.2,
    }


def test_the_table_leaves_no_key_of_a_line_out(start, tmp_path, picture):
    _, found = start([save(tmp_path / "a.png", picture)], samples=1)
    spread_out = {"uncertainty", "person", "camera"}
    assert found[0].keys() - spread_out <= PLAIN.keys()
    inner = {key for name in spread_out for key in found[0][name]} - {"crop", "points_px_and_confidence"}
    assert inner <= INNER.keys()
