"""Damaged counters and links in a CDF file cost neither time nor memory."""

from pathlib import Path

import numpy as np
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io.cdf import read_variable
from pose_rft.sample.h36m_files import write_poses

INDEX_RECORD = 6  # "VXR" of the CDF specification: 8 bytes of size, 4 of type, 8 of the next one, counts, entries
NEXT, USED_ENTRIES = slice(12, 20), slice(24, 28)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_poses(tmp_path / "Walking.cdf", POSES)
    return tmp_path / "Walking.cdf"


POSES = np.random.default_rng(0).normal(size=(7, 96)).astype(np.float32)


def index_record(content: bytes) -> int:
    """Where the first index record begins."""
    for start in range(len(content) - 12):
        size, kind = int.from_bytes(content[start : start + 8], "big"), content[start + 8 : start + 12]
        if kind == INDEX_RECORD.to_bytes(4, "big") and 28 <= size < 10_000:
            return start
    raise AssertionError("no index record")


def test_a_variable_comes_back(file: Path) -> None:
    np.testing.assert_array_equal(read_variable(file, "Pose")[0], POSES)
    with pytest.raises(PoseRftError, match=r"Walking.cdf is not a CDF file with 'Depth'"):
        read_variable(file, "Depth")


@pytest.mark.parametrize("damage", ["a count of billions", "a link to itself"])
def test_an_endless_file_is_refused_at_once(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    start = index_record(content)
    record = memoryview(content)[start:]
    if damage == "a count of billions":
        record[USED_ENTRIES] = (2**31 - 1).to_bytes(4, "big")
    else:
        record[NEXT] = start.to_bytes(8, "big")
    record.release()
    file.write_bytes(content)
    with pytest.raises(PoseRftError, match=r"in circles|nested deeper"):
        read_variable(file, "Pose")
