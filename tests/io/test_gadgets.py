"""A corpus of hostile pickles, each refused in one sentence: nothing runs, little is allocated (S3, S12)."""

import codecs
import collections
import datetime
import functools
import io
import os
import pathlib
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from pose_rft.errors import PoseRftError
from pose_rft.io.unpickle import parse_pickle, read_pickle
from pose_rft.sample import python2_pickle

PROTO = b"\x80\x02"
F8 = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


def array_of(shape: bytes, dtype: bytes, raw: bytes) -> bytes:
    return PROTO + EMPTY + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb."


def nested(start: bytes, wrap: bytes, times: int) -> bytes:
    """`x = wrap(x, x)` again and again, by the memo."""
    places = [struct.pack("<I", number) for number in range(times)]
    return PROTO + start + b"".join(b"r" + n + b"0" + wrap.replace(b"GET", b"j" + n) for n in places) + b"."


def sparse(**changes: Any) -> bytes:
    matrix = scipy.sparse.csc_matrix(np.eye(3))
    for name, value in changes.items():
        setattr(matrix, name, value)
    return python2_pickle.dumps({"J_regressor": matrix})


RUNS_CODE = {
    "os.system": pickle.dumps(Calls(os.system, "touch ran")),
    "subprocess": pickle.dumps(Calls(subprocess.call, ["touch", "ran"])),
    "eval": pickle.dumps(Calls(eval, "open('ran', 'w')")),
    "exec": pickle.dumps(Calls(exec, "open('ran', 'w')")),
    "open": pickle.dumps(Calls(open, "ran", "w")),
    "getattr": pickle.dumps(Calls(getattr, [], "append")),
    "import": pickle.dumps(Calls(__import__, "antigravity")),
    "partial": pickle.dumps(Calls(functools.partial, os.system, "touch ran")),
    "apply": PROTO + b"c__builtin__\napply\n(cposix\nsystem\n(U\x09touch ran\x85tR.",
    "path": pickle.dumps(pathlib.Path("ran")),
    "date": pickle.dumps(datetime.datetime(2026, 1, 1)),
    "codec": pickle.dumps(Calls(codecs.encode, "x", "bz2")),
    "bytearray": pickle.dumps(bytearray(b"x"), 2),
    "complex": pickle.dumps(1j),
    "counter": pickle.dumps(collections.Counter("aab")),
    "numpy load": PROTO + b"cnumpy\nload\nU\x01a\x85R.",
    "numpy runstring": PROTO + b"cnumpy.testing._private.utils\nrunstring\nU\x01aU\x01b\x86R.",
    "numpy f2py": PROTO + b"cnumpy.f2py.crackfortran\nmyeval\nU\x01a\x85R.",
    "inst": b"(S'touch ran'\niposix\nsystem\n.",
    "obj": b"(cposix\nsystem\nS'touch ran'\no.",
    "newobj": PROTO + b"cposix\nsystem\nU\x09touch ran\x85\x81.",
    "newobj of an allowed name": PROTO + b"cnumpy\nndarray\nJ\0\0\0\x7f\x85\x81.",
    "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch ran\x85R.",
    "dotted stack global": b"\x80\x04\x8c\x05numpy\x8c\x12core.multiarray.os\x93.",
    "extension": PROTO + b"\x82\x01.",
    "persistent": b"Pos.system\n.",
    "buffers": b"\x80\x05\x97.",
    "state of a list": PROTO + b"]}U\x09__class__Nsb.",
    "state of an allowed name": PROTO + b"cnumpy\ndtype\n}U\x08__call__Nsb.",
    "a name as data": PROTO + b"cnumpy\nndarray\n.",
    "a name in a list": PROTO + b"]cnumpy\nndarray\na.",
    "a name in a tuple in a list": PROTO + b"]cnumpy\nndarray\n\x85a.",
    "a chumpy class called": PROTO + b"cchumpy.ch\nCh\nU\x01a\x85R.",
    "a chumpy state with a name": PROTO + b"cchumpy.ch\nCh\n)\x81}U\x01xcnumpy\nndarray\nsb.",
    "reconstructor of dict": PROTO + b"ccopy_reg\n_reconstructor\nc__builtin__\nset\nc__builtin__\nobject\nN\x87R.",
    "a class of numpy's memory map": PROTO + b"cnumpy.core.memmap\nmemmap\nU\x01a\x85R.",
}
CORRUPTS = {
    "an array of objects": pickle.dumps(np.array([None, [1]], object)),
    "an array of objects, by its type": array_of(b"K\x01\x85", F8.replace(b"U\x02f8", b"U\x02O8"), b"]Na"),
    "objects hidden in fields": array_of(
        b"K\x01\x85",
        b"cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R(K\x03U\x01|NU\x01a\x85}U\x01aF\x31\n\x86sK\x08K\x01K\x10tb",
        b"U\x08AAAAAAAA",
    ),
    "a structured type": pickle.dumps(np.zeros(2, [("a", "f8"), ("b", "O")])),
    "a void type": pickle.dumps(np.zeros(2, "V8")),
    "dates": pickle.dumps(np.zeros(2, "M8[s]")),
    "complex numbers": pickle.dumps(np.zeros(2, complex)),
    "fewer bytes than the shape": array_of(b"J\0\0\0\x7f\x85", F8, b"U\x08AAAAAAAA"),
    "more bytes than the shape": array_of(b"K\x01\x85", F8, b"U\x10AAAAAAAABBBBBBBB"),
    "a negative shape": array_of(b"J\xff\xff\xff\xff\x85", F8, b"U\x08AAAAAAAA"),
    "a shape that overflows": array_of(b"\x8a\x09\0\0\0\0\0\0\0\0\x01K\x08\x86", F8, b"U\x00"),
    "text of no length": array_of(b"J\0\0\0\x7f\x85", F8.replace(b"U\x02f8", b"U\x02S0"), b"U\x00"),
    "an array without its state": PROTO + EMPTY + b".",
    "a second state": PROTO + EMPTY + b"q\x01(K\x01K\x01\x85" + F8 + b"\x89U\x08AAAAAAAAtbh\x01(K\x01K\x02\x85" + F8
    + b"\x89U\x10AAAAAAAABBBBBBBBtb.",
    "an array inside its own state": PROTO + EMPTY + b"q\x01(K\x01h\x01" + F8 + b"\x89U\x00tb.",
    "a number of too few bytes": PROTO + b"cnumpy.core.multiarray\nscalar\n" + F8 + b"U\x01A\x86R.",
    "a born array with a shape": PROTO + EMPTY.replace(b"K\x00\x85", b"J\0\0\0\x7f\x85") + b".",
}  # fmt: skip
BOMBS = {
    "tuples as a key": nested(b")", b"GETGET\x86", 60)[:-1] + b"}q\xff0}j" + struct.pack("<I", 59) + b"Ns.",
    "tuples": nested(b")", b"GETGET\x86", 60),
    "lists": nested(b"]", b"](GETGETe", 60),
    "dictionaries": nested(b"}", b"}(K\x00GETK\x01GETu", 60),
    "the same megabyte a thousand times": PROTO + b"T" + struct.pack("<i", 1 << 20) + bytes(1 << 20) + b"q\x000](" +
    b"h\x00" * 100_000 + b"e.",
    "depth": PROTO + b"]" * 100_000 + b"a" * 99_999 + b".",
    "nested 200 deep": PROTO + b"]" * 200 + b"a" * 199 + b".",
    "a list in itself": PROTO + b"]q\x00h\x00a.",
    "a tuple in itself": PROTO + b"]q\x00h\x00\x85a.",
    "a memo of 2**32 places": PROTO + b"r\xff\xff\xff\xff.",
    "a memo that is not there": PROTO + b"j\xff\xff\xff\xff.",
    "a string of 2 GB": PROTO + b"T\xff\xff\xff\x7f.",
    "a string of negative length": PROTO + b"T\xff\xff\xff\xff.",
    "bytes of 32 TiB": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 45) + b".",
    "an integer of 10,000 digits": b"I" + b"9" * 10_000 + b"\n.",
    "a long of 10,000 digits": b"L" + b"9" * 10_000 + b"L\n.",
    "a long of 1 MB": PROTO + b"\x8b" + struct.pack("<i", 1 << 20) + bytes(1 << 20) + b".",
    "marks without end": b"(" * 1_000_000,
    "pops of nothing": b"0" * 10,
    "a pop below a mark": PROTO + b"N(0.",
    "half of a UTF-16 pair": b"\x80\x03X\x03\0\0\0\xed\xa0\xbd.",
    "an evaluated string": b"S'a' * 10000000000\n.",
    "nothing": b"",
    "no end": PROTO + b"]",
    "two ends": PROTO + b"]].",
}  # fmt: skip
SPARSE = {
    "an index beyond the rows": {"indices": np.array([0, 1, 1 << 30], np.int32)},
    "a negative index": {"indices": np.array([0, -5, 2], np.int32)},
    "pointers beyond the data": {"indptr": np.array([0, 1, 2, 1 << 30], np.int32)},
    "pointers that go back": {"indptr": np.array([0, 3, 1, 3], np.int32)},
    "too few pointers": {"indptr": np.array([0, 3], np.int32)},
    "fewer data": {"data": np.zeros(1)},
    "a shape of terabytes": {"_shape": (1 << 20, 1 << 20)},
    "a negative shape": {"_shape": (-3, 3)},
}


@pytest.mark.parametrize("name", [*RUNS_CODE, *CORRUPTS, *BOMBS])
def test_every_gadget_is_refused_with_one_sentence(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes((RUNS_CODE | CORRUPTS | BOMBS)[name])
    with pytest.raises(PoseRftError, match=r"pickle") as error:
        read_pickle(tmp_path / "evil.pkl")
    assert len(str(error.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pkl"]


@pytest.mark.parametrize("name", SPARSE)
def test_a_sparse_matrix_that_points_out_of_itself_is_refused(name: str) -> None:
    content = parse_pickle(sparse(**SPARSE[name]), "evil.pkl")
    with pytest.raises(PoseRftError, match="sparse csc matrix is damaged"):
        content["J_regressor"].toarray()


@pytest.mark.parametrize("kind", ["csc", "csr", "coo"])
def test_honest_sparse_matrices_come_back_dense(kind: str) -> None:
    dense = np.random.default_rng(0).integers(0, 2, (5, 7)).astype(float)
    for protocol in (2, 4):
        content = pickle.dumps(getattr(scipy.sparse, f"{kind}_matrix")(dense), protocol)
        np.testing.assert_array_equal(parse_pickle(content, "a.pkl").toarray(), dense)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol_comes_back_equal(protocol: int) -> None:
    shared = [1, 2.5]
    content = {
        "text": "é\n'", "none": None, "flags": [True, False],
        "numbers": (0, -1, 255, 65536, 1 << 40, -(1 << 62), 1e300),
        "bytes": b"\0\xff", "empty": [[], {}, (), "", set()], "shared": [shared, shared], 3: {"a": (1, (2, 3))},
        "set": {1, "a"}, "ordered": collections.OrderedDict(a=1), "no bytes": b"",
    }  # fmt: skip
    back = parse_pickle(pickle.dumps(content, protocol), "a.pkl")
    if protocol < 3:  # Python 3 wraps bytes as calls of a codec there, and the reader takes str for latin1
        assert back["bytes"] == b"\0\xff"
    assert back == content and back["shared"][0] is back["shared"][1]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_plain_type_come_back_equal_and_may_be_changed(protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(size=(3, 2, 2)).astype(kind) for kind in ("f2", "f4", "f8", ">f8", "i1", "u2", "i8", "?")]
    arrays += [
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.asfortranarray(arrays[0]),
        np.zeros((0, 72)),
        np.array(3.0),
    ]
    back = parse_pickle(pickle.dumps([*arrays, arrays[0]], protocol), "a.pkl")
    for ours, theirs in zip(back, [*arrays, arrays[0]], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype and ours.flags.writeable
    assert back[0] is back[-1]
    for number in (np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("x")):
        assert parse_pickle(pickle.dumps(number, protocol), "a.pkl") == number


def test_objects_are_let_through_where_an_archive_needs_them() -> None:
    people = np.array([{"a": np.ones(2)}, None, [1]], object).reshape(3, 1)
    back = parse_pickle(pickle.dumps(people), "a.npz", objects=True)
    assert back.shape == (3, 1) and back[1, 0] is None and back[0, 0]["a"].sum() == 2


def test_the_reader_never_loads_pythons_unpickler() -> None:
    code = "import sys, pose_rft.io.unpickle as u; print(hasattr(u, 'pickle'), 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_random_opcodes_are_a_value_or_one_sentence() -> None:
    rng = np.random.default_rng(0)
    codes = np.frombuffer(b"().01NIJKMGSTUVX]aelt}sudqprhgjcRb\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94", np.uint8)
    names = [b"cnumpy\ndtype\n", EMPTY, F8, b"U\x02f8", b"K\x00\x85", b"cchumpy.ch\nCh\n)\x81", b"(K\x01K\x01\x85"]
    for _ in range(3000):
        parts = [
            names[int(rng.integers(len(names)))]
            if rng.random() < 0.2
            else bytes([rng.choice(codes), *rng.integers(0, 3, 1)])
            for _ in range(int(rng.integers(1, 30)))
        ]
        try:
            parse_pickle(b"".join(parts) + b".", "random.pkl")
        except PoseRftError as error:
            assert "random.pkl" in str(error)


def test_a_cut_or_changed_model_is_a_value_or_one_sentence() -> None:
    file = io.BytesIO()
    whole = python2_pickle.dumps(
        {"a": np.arange(20.0), "m": scipy.sparse.csc_matrix(np.eye(3)), "c": python2_pickle.Chumpy(np.ones(3))}
    )
    file.write(whole)
    rng = np.random.default_rng(3)
    for _ in range(1500):
        broken = bytearray(whole)
        for place in rng.integers(len(broken), size=rng.integers(1, 4)):
            broken[place] = int(rng.integers(256))
        try:
            found = parse_pickle(bytes(broken), "model.pkl")
            if isinstance(found, dict) and hasattr(found.get("m"), "toarray"):
                found["m"].toarray()
        except PoseRftError:
            continue
