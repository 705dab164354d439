"""The README's blocks that need a finished run, pasted into a fresh shell."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.conftest import ROOT, Project
from tests.support.pages import paste, readme_block

pytestmark = pytest.mark.pipeline


@pytest.mark.parametrize("words", ["pose-rft predict", "dvc repro"])
def test_the_readme_works_as_pasted(finished: Project, tmp_path: Path, words: str) -> None:
    project = finished.copy(tmp_path / "project")
    (project.root / "docs/images").mkdir(parents=True)
    shutil.copy(ROOT / "docs/images/photo.jpg", project.root / "docs/images")
    paste(readme_block(words), project.root, PYTHONPATH=str(project.root), OMP_NUM_THREADS="1")
    if words == "pose-rft predict":
        assert (project.root / "predictions/predictions.jsonl").is_file()
