"""The documents' blocks that need a finished run, pasted into a fresh shell."""

import shlex
import shutil
from pathlib import Path

import pytest

from pose_rft.io import video
from pose_rft.predict.photographs import encode_png, read_photograph
from tests.pipeline.conftest import ROOT, Project
from tests.support.pages import blocks, paste, readme_block

pytestmark = pytest.mark.pipeline


@pytest.mark.parametrize("words", ["pose-rft predict", "dvc repro"])
def test_the_readme_works_as_pasted(finished: Project, tmp_path: Path, words: str) -> None:
    project = finished.copy(tmp_path / "project")
    (project.root / "docs/images").mkdir(parents=True)
    shutil.copy(ROOT / "docs/images/photo.jpg", project.root / "docs/images")
    paste(readme_block(words), project.root, PYTHONPATH=str(project.root), OMP_NUM_THREADS="1")
    if words == "pose-rft predict":
        assert (project.root / "predictions/predictions.jsonl").is_file()


@pytest.mark.parametrize("page", ["docs/index.md", pytest.param("docs/predict.md", marks=pytest.mark.slow)])
def test_the_commands_of_a_page_work_where_a_run_is(finished: Project, tmp_path: Path, page: str) -> None:
    """Of the first block that predicts; the files that it names are there, and a server is not waited for."""
    (block, *_) = (block for block in blocks(ROOT / page) if "pose-rft predict photo.jpg" in block)
    for name in ("models", "data", "params.yaml"):
        (tmp_path / name).symlink_to(finished.root / name)
    photograph = ROOT / "docs/images/photo.jpg"
    for name in ("holiday", "shots"):
        (tmp_path / name).mkdir()
    for name in ("photo.jpg", "holiday/one.jpg"):
        shutil.copy(photograph, tmp_path / name)
    pixels = read_photograph(photograph).pixels
    (tmp_path / "shots/two.png").write_bytes(encode_png(pixels))
    even = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]
    video.encode(tmp_path / "film.mp4", [even] * 4, 25, "h264")
    lines = [line for line in block.splitlines() if shlex.split(line, comments=True) != ["pose-rft", "demo"]]
    paste("source .venv/bin/activate\n" + "\n".join(lines), tmp_path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    assert (tmp_path / "predictions/predictions.jsonl").is_file()
