"""Every command: what the system refuses, and params of another shape, are one sentence and status 2 (S21)."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pose_rft import cli
from pose_rft.errors import PoseRftError
from pose_rft.predict.ask import answers

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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_written_out(encoding, tmp_path, monkeypatch):
    """Tables have lines and dashes, and a file's name may be no UTF-8."""
    page = tmp_path / os.fsdecode(b"\xff.html")
    page.touch()
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    assert status(monkeypatch, tmp_path, "tables", str(ROOT / "metrics/summary.json"), "--page", str(page)) == 0
    said = shown.buffer.getvalue()
    assert b"HyGRPO" in said and rb"\udcff.html" in said


def test_a_reader_that_wants_no_more_is_no_error(tmp_path):
    line = [sys.executable, "-c", "from pose_rft.cli import main; main()", "tables", str(ROOT / "metrics/summary.json")]
    taking, giving = os.pipe()
    os.close(taking)
    done = subprocess.run(line, cwd=ROOT, stdout=giving, stderr=subprocess.PIPE, text=True)
    os.close(giving)
    assert done.stderr == ""


def test_a_model_folder_that_is_none_is_not_looked_through(tmp_path, monkeypatch, capsys):
    assert status(monkeypatch, tmp_path, "predict", "--text", "he stands", "--model", "/") == 2
    assert "/ holds no policy, expected config.json" in capsys.readouterr().err


def test_a_question_that_is_no_text_is_one_sentence():
    with pytest.raises(PoseRftError, match="no valid UTF-8"):
        answers(Path("models"), ["why?", "\udcff"], 8)
