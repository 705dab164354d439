"""Body models of three sizes for the readers' tests."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pose_rft.sample import python2_pickle


@pytest.fixture(scope="session")
def body_models(tmp_path_factory: pytest.TempPathFactory, tiny_model: dict[str, Any], tiny_folder: Path) -> Path:
    """Neutral, male and female bodies of different sizes, and the regressor."""
    folder = tmp_path_factory.mktemp("bodies")
    content = tiny_model | {"posedirs": np.zeros((6800, 3, 207), np.float32)}
    for gender, size in (("NEUTRAL", 1.0), ("MALE", 1.05), ("FEMALE", 0.95)):
        sized = content | {"v_template": content["v_template"] * size}
        python2_pickle.dump(sized, folder / "smpl" / f"SMPL_{gender}.pkl")
    shutil.copy(tiny_folder / "J_regressor_h36m.npy", folder)
    return folder
