"""The benchmark of `predict` sends the same people through all ways and counts them."""

import json
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import predict
from benchmarks.predict import PAIRS, corner_and_size, said
from pose_rft.errors import PoseRftError
from pose_rft.predict.photographs import Photograph
from pose_rft.predict.prediction import Seen
from pose_rft.predict.regions import Region
from pose_rft.record import Box


class Counting:
    """A predictor that finds two people in each photograph and notes who goes through it, and how."""

    processor = SimpleNamespace(image=SimpleNamespace(box_scale=1.25))

    def __init__(self, *_: object) -> None:
        self.asked: list[list[tuple[str, tuple[float, float]]]] = []
        Counting.last = self

    def everyone(self, photograph):
        return [Seen(Region((x, 40.0), 25.0), "detector") for x in (30.0, 60.0)]

    def see(self, photograph, boxes):
        assert all(box.side == pytest.approx(20) for box in boxes)  # the person's, without the crop's margin
        return [Seen(Region(box.center, 25.0), "given") for box in boxes]

    def photograph(self, photograph, boxes):
        self.asked.append([(photograph.path.name, boxes[0].center)])

    def people(self, looked):
        self.asked.append([(one.photograph.path.name, who.region.center) for one in looked for who in one.seen])


def run(monkeypatch, capsys, *arguments: str) -> str:
    def read(path):
        if not path.stem.isdigit():
            raise PoseRftError(f"{path} is no picture.")
        return Photograph(path, np.zeros((80, 90, 3), np.uint8), 100.0, "guess")

    monkeypatch.setattr(predict, "Predictor", Counting)
    monkeypatch.setattr(predict, "read_photograph", read)
    monkeypatch.setattr(predict, "mediapipe", lambda people: {})
    monkeypatch.setattr(sys, "argv", ["predict", *arguments, "--processes", "0", "--rounds", "1"])
    predict.main()
    return capsys.readouterr().out


def test_every_way_takes_the_same_people_one_by_one_or_together(monkeypatch, capsys):
    rates = json.loads(run(monkeypatch, capsys, "1.jpg", "2.jpg", "--persons", "6", "--json"))
    assert set(rates) == {f"{pair}, {how}" for pair in ("boxes", "policy") for how in ("one by one", "together")} | {
        "detector"
    }
    asked = Counting.last.asked
    assert [len(one) for one in asked] == [1] * 6 + [6] + [1] * 6 + [6]
    ways = [list(chain(*asked[:6])), asked[6], list(chain(*asked[7:13])), asked[13]]
    everyone = [(name, (x, 40.0)) for name in ("1.jpg", "2.jpg") for x in (30.0, 60.0)]
    assert all(sorted(way) == sorted(everyone + everyone[:2]) for way in ways)


def test_what_batches_gain_is_said_of_each_pair_that_was_measured():
    text = said({f"{PAIRS[0]}, one by one": 0.5, f"{PAIRS[0]}, together": 4.0, "detector": 2.0})
    assert f"{PAIRS[0]}: together 8.0 times as fast" in text and PAIRS[1] not in text


def test_a_picture_that_is_none_is_one_sentence(monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"^error: a\.txt is no picture\.$"):
        run(monkeypatch, capsys, "a.txt")


def test_a_box_is_given_as_the_command_takes_it():
    assert corner_and_size(Box((50.0, 40.0), 20.0, "given")) == [40.0, 30.0, 20.0, 20.0]


def test_the_command_is_run_for_each_person_and_for_all(monkeypatch, tmp_path):
    commands: list[list[str]] = []

    def done(command, **_):
        commands.append(command)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(predict.subprocess, "run", done)
    photographs = [Photograph(Path(f"{n}.jpg"), np.zeros((80, 90, 3), np.uint8), 100.0, "guess") for n in (1, 2)]
    boxes = [(photograph, Box((50.0, 40.0), 20.0, "given")) for photograph in photographs] * 2
    asked = SimpleNamespace(threads=2, model="m", body_model="b")
    ways = predict.processes(asked, boxes, 3, tmp_path)
    assert {name: count for name, (_, count) in ways.items()} == {"command, one by one": 3, "command, together": 4}
    for work, _ in ways.values():
        work()
    assert [command.count("--box") for command in commands] == [1, 1, 1, 0]
    written = json.loads((tmp_path / "boxes.json").read_text())
    assert [row["image_id"] for row in written["annotations"]] == [0, 1, 0, 1]
    assert {"1.jpg", "2.jpg", str(tmp_path / "boxes.json")} < set(commands[-1])
