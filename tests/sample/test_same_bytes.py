"""G3: the sample and its shards are the same whatever kernels, threads and processes a machine uses.

What differs between machines is imitated: BLAS kernels, SIMD paths of numpy, torch, OpenCV, JPEG and FFmpeg, the number
of threads and processes.
"""

import hashlib
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose_rft.render.steps import in_steps, rounded
from pose_rft.sample import stored

ROOT = Path(__file__).parents[2]
OLDER_CPU = {
    "OPENBLAS_CORETYPE": "Prescott",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "OPENCV_IPP": "disabled",
    "OPENCV_CPU_DISABLE": "SSE4_1,SSE4_2,AVX,FP16,AVX2,AVX512-SKX",
    "JSIMD_FORCENONE": "1",
    "PLAIN_FFMPEG": "1",
}
OTHER_CPU = {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2", "OPENCV_CPU_DISABLE": "AVX512-SKX"}


def numpy_features() -> str:
    """What numpy chooses at run time on this machine, to be switched off."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))


def build(out: Path, processes: int, **settings: str) -> dict[str, str]:
    script = ROOT / "tests/support/build_small.py"
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, **settings}
    command = [sys.executable, str(script), str(out), str(processes)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


# G3
@pytest.mark.slow
def test_no_cpu_and_no_number_of_processes_changes_a_byte(tmp_path: Path) -> None:
    here = build(tmp_path / "here", 2, OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2")
    older = build(tmp_path / "older", 1, NPY_DISABLE_CPU_FEATURES=numpy_features(), **OLDER_CPU)
    other = build(tmp_path / "other", 1, **OTHER_CPU)
    assert len(here) > 120 and any(name.startswith("shards/") for name in here)
    for there in (older, other):
        assert [name for name in here if here[name] != there.get(name)] == [] and here.keys() == there.keys()


def test_rounding_leaves_no_trace_of_the_last_digit() -> None:
    noise = 1e-15
    values = np.array([0.1, 0.0, -2.5, 1e-9])
    assert rounded(values + noise, 6).tobytes() == rounded(values - noise, 6).tobytes()
    picture = np.full((4, 4, 3), 1 / 3)
    np.testing.assert_array_equal(in_steps(picture + noise), in_steps(picture - noise))


def test_a_stored_png_is_the_picture(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (130, 220, 3), dtype=np.uint8)  # more than one stored block
    data = stored.png(image)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], image)
    header = data.index(b"IDAT")
    length = struct.unpack(">I", data[header - 4 : header])[0]
    assert len(zlib.decompress(data[header + 4 : header + 4 + length])) == 130 * (1 + 220 * 3)


def test_a_stored_npz_is_read_by_numpy_and_names_no_time() -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "text": np.array("male"), "any": np.array([None, "x"], object)}
    data = stored.npz(arrays)
    assert data == stored.npz(arrays)
    with np.load(io.BytesIO(data), allow_pickle=True) as read:
        assert read["text"] == "male" and read["any"][1] == "x"
        np.testing.assert_array_equal(read["a"], arrays["a"])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {(m.date_time, m.create_system, m.compress_type, m.create_version) for m in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 3, zipfile.ZIP_STORED, 20)
        }
