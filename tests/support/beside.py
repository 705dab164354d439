"""Real files that may lie beside the project and are no part of it; tests that need them are skipped without."""

import os
from pathlib import Path

FOLDER = Path(os.environ.get("POSE_RFT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared"))


def beside(name: str) -> Path:
    """Where the file or folder `name` would lie: below `POSE_RFT_TEST_DATA`, by default `shared` beside it."""
    return FOLDER / name
