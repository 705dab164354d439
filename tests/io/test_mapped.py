"""S14: a disk that is full is an error while a cache is made, never a signal while it is used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io.mapped import new_array, open_array


@pytest.mark.parametrize("shape", [(3, 4, 4, 3), (1,), (5, 0)])
def test_what_the_block_writes_comes_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with new_array(tmp_path / "a.npy", np.float16, shape) as array:
        array[...] = 2
    back = open_array(tmp_path / "a.npy")
    assert back.shape == shape and back.dtype == np.float16 and (np.asarray(back) == 2).all()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), back)


@pytest.mark.parametrize("kept", [0, 6, 60, -1])
def test_a_damaged_array_is_one_sentence_that_says_what_to_remove(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cache" / "a.npy"
    path.parent.mkdir()
    with new_array(path, np.float16, (7, 5)) as array:
        array[...] = 2
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PoseRftError, match=rf"a\.npy is damaged; remove {path.parent}, "):
        open_array(path)


def test_the_space_is_taken_before_the_file_is_mapped(tmp_path: Path) -> None:
    with new_array(tmp_path / "a.npy", np.uint8, (1 << 20,)):
        assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1 << 20


SMALL_FILES = """
import errno, resource, signal, sys
from pathlib import Path
import numpy as np
from pose_rft.io.mapped import new_array
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with new_array(Path(sys.argv[1]), np.uint8, (1 << 20,)) as array:
        array[:] = 1
except OSError as error:
    print(error.errno == errno.EFBIG, error.filename == sys.argv[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="stands in for a full disk")
def test_where_the_file_cannot_grow_the_error_comes_first_and_names_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILES, str(tmp_path / "a.npy")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True True\n", done
