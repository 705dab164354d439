# B7: a home that cannot be written, a user id without one.
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pose_rft.render.kernel_cache import private_cache


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_cache_that_can_be_written_stays_warps_choice(tmp_path: Path) -> None:
    assert private_cache({"XDG_CACHE_HOME": str(tmp_path / "not" / "yet")}) is None
    assert private_cache({"XDG_CACHE_HOME": "/dev/null/x", "WARP_CACHE_PATH": str(tmp_path)}) is None


def test_without_one_the_kernels_go_to_a_private_folder(tmp_path: Path) -> None:
    for nowhere in ("/dev/null/cache", "~nobody-of-that-name/.cache", "relative"):
        folder = private_cache({"XDG_CACHE_HOME": nowhere})
        assert folder is not None and folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
        assert private_cache({"XDG_CACHE_HOME": nowhere}) == folder


def test_a_folder_that_others_could_have_filled_is_not_taken(tmp_path: Path) -> None:
    shared = tmp_path / f"pose-rft-kernels-{os.getuid()}"
    shared.mkdir(mode=0o700)
    shared.chmod(0o777)
    folder = private_cache({"XDG_CACHE_HOME": "/dev/null/cache"})
    assert folder is not None and folder != shared and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_pictures_are_rendered_without_a_home(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from pose_rft.render.renderer import Renderer; "
        "r = Renderer(np.array([[0, 2, 1]])); v = np.array([[-1., -1, 3], [1, -1, 3], [0, 1, 3]]); "
        "K = np.array([[20., 0, 16], [0, 20, 16], [0, 0, 1]]); "
        "print(r.render(v, np.ones((1, 3)), K, (32, 32), np.zeros(3))[1].sum())"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "WARP_CACHE_PATH")}
    environment |= {"HOME": "/dev/null", "TMPDIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob("pose-rft-kernels-*/*"))
