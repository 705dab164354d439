"""Every command: what the system refuses, and params of another shape, are one sentence and status 2 (S21)."""

import sys
from pathlib import Path

import pytest

from pose_rft import cli

ROOT = Path(__file__).resolve().parents[1]
TOO_LONG = "x" * 500


def status(monkeypatch: pytest.MonkeyPatch, folder: Path, *line: str) -> object:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pose-rft", *line])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    "line",
    [
        ["predict", "--text", "he stands", "--model", TOO_LONG],
        ["predict", TOO_LONG],
        ["ask", "why?", "--model", TOO_LONG],
        ["describe", TOO_LONG],
        ["tables", TOO_LONG],
        ["doctor", "data", "--root", TOO_LONG],
        ["shards", "verify", TOO_LONG],
        ["shards", "stats", TOO_LONG],
        ["shards", "show", TOO_LONG, "k"],
        ["shards", "convert", "coco", "--root", TOO_LONG, "--split", "train", "--out", "out"],
        ["shards", "convert", "coco", "--root", "coco", "--split", "train", "--out", TOO_LONG],
    ],
    ids=lambda line: " ".join(line[:2]),
)
def test_a_name_that_the_system_refuses_is_one_sentence(line, tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    (tmp_path / "coco").mkdir()
    assert status(monkeypatch, tmp_path, *line) == 2
    said = capsys.readouterr().err
    assert "error: " in said and "Traceback" not in said and said.count("\n") <= 3


@pytest.mark.parametrize("section", ["data: []", "shards: 5", "data: {body_model: [1]}"])
def test_sections_of_another_shape_are_one_sentence(section, tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(f"datasets: {{coco: {{}}}}\n{section}\n")
    (tmp_path / "coco").mkdir()
    line = ("shards", "convert", "coco", "--root", "coco", "--split", "train", "--out", "out")
    assert status(monkeypatch, tmp_path, *line) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and section.split(":")[0] in said
