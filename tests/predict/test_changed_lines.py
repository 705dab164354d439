"""Lines of results that somebody changed: one sentence is said, or a picture, a table, a film's resumption are made."""

import json
from itertools import islice

import pytest

from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.predict import overlays
from pose_rft.predict.film import Film
from pose_rft.predict.inputs import look_at
from pose_rft.predict.overlays import Overlays
from pose_rft.predict.table import write_table
from tests.predict.conftest import save

ODD = [None, "x", -1, 10**19, 1e300, float("nan"), [], [[1.0], [1.0, 2.0]], {"nose": [1e300, 0, 0]}]


def places(content, path=()):
    """Paths to every value of a line, of lists and of what stands there for each joint to the first one."""
    yield path
    inner = content if isinstance(content, dict) else dict(enumerate(content)) if isinstance(content, list) else {}
    one = isinstance(content, list) or path[-1:] in [("spread_degrees",), ("points_px_and_confidence",)]
    for key, value in [*inner.items()][: 1 if one else None]:
        yield from places(value, (*path, key))


def changed(line, path, value):
    line = json.loads(json.dumps(line))
    node = line
    for key in path[:-1]:
        node = node[key]
    if value is KeyError:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return line


@pytest.fixture
def predicted(start, tmp_path, picture, seeing, film_file, monkeypatch):
    """Lines of a photograph and of a film, and the input of each."""
    monkeypatch.setattr(overlays, "PORTRAIT", 24)
    monkeypatch.setattr(overlays, "LONGEST_SIDE", 48)
    paths = [save(tmp_path / "a.png", picture), film_file]
    _, found = start(paths, box=None, samples=1, every=6)
    inputs = {"photograph": look_at(paths[0], 1), "video": look_at(film_file, 6)}
    return found, inputs


@pytest.mark.parametrize("step", [19, pytest.param(1, marks=pytest.mark.slow)])
def test_a_changed_line_is_one_sentence_or_a_picture(predicted, tmp_path, tiny_folder, step):
    found, inputs = predicted
    body, path = load_body_model(tiny_folder), tmp_path / "changed/predictions.jsonl"
    path.parent.mkdir()
    line = next(line for line in found if line["kind"] == "photograph")
    overlay = Overlays(path, {line["input"]: "a"}, body, 1, True)
    drawn, refused, tried = 0, 0, set()
    for place, row in islice(variants(line), None, None, step):
        path.write_text(row)
        try:
            for one, group in overlay.pictures({line["input"]: inputs["photograph"]}):
                overlay.draw(one, group)
            drawn += 1
        except PoseRftError as error:
            assert "\n" not in str(error)
            refused += 1
        tried.add(place[-1])
    assert drawn > 200 / step and refused > 200 / step, "what an overlay does not need may be anything"
    assert step > 1 or {"rotation_matrices", "K", "transl_metres", "side_px", "std_6d", "frame"} <= tried


def test_a_changed_line_is_one_sentence_or_a_row_and_a_film_that_goes_on(predicted, tmp_path):
    found, inputs = predicted
    path = tmp_path / "changed/predictions.jsonl"
    path.parent.mkdir()
    line = next(line for line in found if line["kind"] == "video")
    refused = 0
    for _, row in islice(variants(line), None, None, 7):
        path.write_text(row)
        for use in (write_table, lambda lines: Film(inputs["video"], 6, 0.2).resume(lines, line["input"], 0)):
            try:
                use(path)
            except PoseRftError:
                refused += 1
    assert refused > 20


def variants(line):
    """(what is changed, the line's text) of everything that may stand in a line's places."""
    for place in places(line | {"persons": 1}):
        for value in [KeyError, *ODD] if place else []:
            yield place, json.dumps(changed(line | {"persons": 1}, place, value), separators=(",", ":")) + "\n"
