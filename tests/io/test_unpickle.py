import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from pose_rft.errors import PoseRftError
from pose_rft.io.unpickle import ChumpyArray, plain, read_pickle
from pose_rft.sample import python2_pickle


class Payload:
    def __reduce__(self):
        return os.system, ("touch /tmp/should_not_exist",)


def test_a_payload_that_would_run_code_is_refused_by_name(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"poses": Payload()}, protocol=protocol))
        with pytest.raises(PoseRftError, match=r"names (posix|nt)\.system"):
            read_pickle(tmp_path / "evil.pkl")


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__", "open"])
def test_dangerous_builtins_are_refused(tmp_path: Path, name: str) -> None:
    for module in ("builtins", "__builtin__"):
        (tmp_path / "evil.pkl").write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"U\x01aR.")
        with pytest.raises(PoseRftError, match=name):
            read_pickle(tmp_path / "evil.pkl")


def test_python2_pickles_need_latin1_and_come_back_equal(tmp_path: Path) -> None:
    regressor = scipy.sparse.random(24, 90, 0.1, "csc", rng=np.random.default_rng(0))
    content = {
        "sequence": "café_00",
        "genders": ["m", "f"],
        "poses": [np.arange(144.0).reshape(2, 72), np.zeros((0, 72))],
        "big": np.linspace(0, 1, 5000),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "ids": np.arange(4, dtype=np.uint32),
        "scalar": np.float64(2.5),
        "flag": np.array([True, False]),
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "shapedirs": python2_pickle.Chumpy(np.ones((3, 2))),
        "counts": (1, None, True, 2.5, 1 << 40),
        "long": "x" * 1000,
    }
    path = tmp_path / "seq.pkl"
    python2_pickle.dump(content, path)
    with pytest.raises((UnicodeDecodeError, ModuleNotFoundError)):
        pickle.loads(path.read_bytes())
    back = read_pickle(path)
    assert list(back) == list(content)
    assert back["sequence"] == "café_00" and back["counts"] == content["counts"] and back["long"] == content["long"]
    for name in ("big", "fortran", "ids", "flag", "scalar"):
        np.testing.assert_array_equal(back[name], content[name])
        assert back[name].dtype == content[name].dtype
    for ours, theirs in zip(back["poses"], content["poses"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(back["J_regressor"].toarray(), regressor.toarray())
    assert isinstance(back["shapedirs"], ChumpyArray)
    np.testing.assert_array_equal(plain(back["shapedirs"]), np.ones((3, 2)))


def test_the_pickle_names_the_modules_of_python_2(tmp_path: Path) -> None:
    text = python2_pickle.dumps({"a": np.zeros(2), "r": scipy.sparse.csc_matrix(np.eye(2))})
    for module in (b"numpy.core.multiarray", b"copy_reg", b"__builtin__", b"scipy.sparse.csc\n"):
        assert module in text
    assert b"numpy._core" not in text and b"_codecs" not in text


def test_python3_pickles_of_numpy_2_are_read_too(tmp_path: Path) -> None:
    content = {"a": np.arange(3), "s": np.float32(1), "m": scipy.sparse.csc_matrix(np.eye(3)), "b": b"\xff", "t": "é"}
    for protocol in (2, 4, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        back = read_pickle(tmp_path / "a.pkl")
        np.testing.assert_array_equal(back["a"], content["a"])
        np.testing.assert_array_equal(back["m"].toarray(), np.eye(3))
        assert back["b"] == b"\xff" and back["t"] == "é" and back["s"] == 1


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"not a pickle", lambda b: b[::-1]]
)
def test_damaged_pickles_raise_one_sentence(tmp_path: Path, damage) -> None:
    (tmp_path / "bad.pkl").write_bytes(damage(python2_pickle.dumps({"a": np.arange(100.0)})))
    with pytest.raises(PoseRftError, match=r"bad\.pkl"):
        read_pickle(tmp_path / "bad.pkl")


def test_bit_flips_never_escape_as_another_exception(tmp_path: Path) -> None:
    sparse = scipy.sparse.csc_matrix(np.eye(3))
    content = bytearray(python2_pickle.dumps({"a": np.arange(20.0), "m": sparse, "s": "text"}))
    rng = np.random.default_rng(1)
    for _ in range(150):
        broken = bytearray(content)
        broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.pkl").write_bytes(broken)
        with contextlib.suppress(PoseRftError):
            read_pickle(tmp_path / "b.pkl")
