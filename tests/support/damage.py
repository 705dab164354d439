"""Ways to damage a file: without knowing its format, and by exchanging the type of one thing inside it."""

import json
import pickle
import signal
import traceback
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import scipy.io
import yaml

from pose_rft.errors import PoseRftError
from pose_rft.io.unpickle import read_pickle

PATIENCE = 60  # s
Damage = Callable[[bytes, np.random.Generator], bytes]


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """One to sixteen bytes changed, half of the time near the start, where headers are."""
    broken = bytearray(content)
    reach = len(broken) if rng.random() < 0.5 else min(len(broken), 600)
    for place in rng.integers(reach, size=rng.integers(1, 17)):
        broken[place] ^= int(rng.integers(1, 256))
    return bytes(broken)


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 65))
    filler = (b"\0", b"\xff", b"9", b"-", b"[")[int(rng.integers(5))]
    return content[:start] + filler * length + content[start + length :]


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece is missing, or is there twice."""
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 2000))
    piece = content[start : start + length]
    return content[:start] + (piece * 2 if rng.random() < 0.5 else b"") + content[start + length :]


BYTES: tuple[Damage, ...] = (truncated, flipped, overwritten, cut)


def other(rng: np.random.Generator, value: Any) -> Any:
    """A value of another type or range than `value`."""
    choices: list[Any] = [
        None, True, -1, 0, 1e300, float("nan"), float("inf"), 10**30, "", "text", "../../etc/passwd", "\0", [], {},
        [[]], [None], [value], {"x": value}, [1, 2, 3], [[1, "a"], [2.5]], str(value)[:50], -(2**63), "9" * 50,
    ]  # fmt: skip
    return choices[int(rng.integers(len(choices)))]


def with_other_type(content: Any, rng: np.random.Generator) -> Any:
    """A copy of nested lists and dicts in which one node, anywhere, is of another type, missing or there twice."""
    if isinstance(content, (dict, list)) and content and rng.random() < 0.85:
        places = list(content) if isinstance(content, dict) else range(len(content))
        place = places[int(rng.integers(len(places)))]
        copy = content.copy()
        if rng.random() < 0.1:
            del copy[place]
        else:
            copy[place] = with_other_type(content[place], rng)
        return copy
    return other(rng, content if not isinstance(content, (dict, list, np.ndarray)) else 1)


def other_array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An array of another shape or type, or with numbers that no label has."""
    array = np.atleast_1d(array)
    flat = array.ravel()
    spoiled = array.astype(np.float64, copy=True) if array.dtype.kind in "fiu" else array.copy()
    if spoiled.dtype.kind == "f" and spoiled.size:
        spoiled.flat[int(rng.integers(spoiled.size))] = (np.nan, np.inf, -1e300, 0.0)[int(rng.integers(4))]
    choices = [
        spoiled, flat, array[..., None], array[:0], flat[:1].reshape(()) if flat.size else np.zeros(()),
        np.zeros((0, 3)), np.full(array.shape, "text"), np.zeros(array.shape, bool), np.zeros(array.shape, complex),
        array.T, np.concatenate([array, array]), np.full((2, 2), np.nan),
    ]  # fmt: skip
    return choices[int(rng.integers(len(choices)))]


def _json(path: Path, rng: np.random.Generator) -> None:
    path.write_text(json.dumps(with_other_type(json.loads(path.read_text()), rng)))


def _pickle(path: Path, rng: np.random.Generator) -> None:
    content = dict(read_pickle(path))
    name = sorted(content)[int(rng.integers(len(content)))]
    value = content[name]
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray) and rng.random() < 0.7:
        value[int(rng.integers(len(value)))] = other_array(value[0], rng)
    elif isinstance(value, np.ndarray) and rng.random() < 0.7:
        content[name] = other_array(value, rng)
    elif rng.random() < 0.2:
        del content[name]
    else:
        content[name] = other(rng, 1)
    path.write_bytes(pickle.dumps(content, protocol=2))


def _npz(path: Path, rng: np.random.Generator) -> None:
    with np.load(path, allow_pickle=True) as archive:
        content = dict(archive)
    name = sorted(content)[int(rng.integers(len(content)))]
    if rng.random() < 0.1:
        del content[name]
    else:
        content[name] = other_array(content[name], rng)
    np.savez(path, **content)


def _mat(path: Path, rng: np.random.Generator) -> None:
    if path.read_bytes()[:10] == b"MATLAB 7.3":
        return _hdf5(path, rng)
    content = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    name = sorted(content)[int(rng.integers(len(content)))]
    array = content[name]
    if array.dtype == object and array.size and rng.random() < 0.7:
        place = int(rng.integers(array.size))
        array.flat[place] = other_array(np.asarray(array.flat[place]), rng)
    elif array.dtype.names and rng.random() < 0.9:
        _struct(array, rng)
    else:
        content[name] = other_array(array, rng)
    scipy.io.savemat(path, content)


def _struct(array: np.ndarray, rng: np.random.Generator) -> None:
    """Spoils one field of a struct array, however deep."""
    while True:
        name = array.dtype.names[int(rng.integers(len(array.dtype.names)))]
        place = int(rng.integers(array.size)) if array.size else 0
        inner = array[name].flat[place] if array.size else None
        if isinstance(inner, np.ndarray) and inner.dtype.names and inner.size and rng.random() < 0.9:
            array = inner
            continue
        if array.size:
            array[name].flat[place] = other_array(np.asarray(inner), rng) if rng.random() < 0.6 else np.zeros((0, 0))
        return


def _hdf5(path: Path, rng: np.random.Generator) -> None:
    with h5py.File(path, "r+") as file:
        names = sorted(name for name in file if isinstance(file[name], h5py.Dataset))
        name = names[int(rng.integers(len(names)))]
        array = file[name][()]
        del file[name]
        if rng.random() < 0.85:
            spoiled = other_array(array if array.dtype.kind in "fiu" else np.zeros(array.shape), rng)
            file[name] = spoiled.astype("S") if spoiled.dtype.kind == "U" else spoiled


def _yaml(path: Path, rng: np.random.Generator) -> None:
    path.write_text(yaml.safe_dump(with_other_type(yaml.safe_load(path.read_text()), rng)))


def _safetensors(path: Path, rng: np.random.Generator) -> None:
    """Another header before the same numbers."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(with_other_type(json.loads(content[8:end]), rng)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def _zip_of_torch(path: Path, rng: np.random.Generator) -> None:
    """One member of the archive with other bytes, its checksum right."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    names = [name for name in members if name.endswith("data.pkl")] * 3 + sorted(members)
    name = names[int(rng.integers(len(names)))]
    members[name] = BYTES[int(rng.integers(len(BYTES)))](members[name], rng) if members[name] else b"x"
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)


def _parquet(path: Path, rng: np.random.Generator) -> None:
    table = pl.read_parquet(path)
    name = table.columns[int(rng.integers(len(table.columns)))]
    choices = [
        table.drop(name),
        table.head(0),
        pl.concat([table, table]),
        table.with_columns(pl.lit(None).cast(table[name].dtype).alias(name)),
        table.with_columns(pl.lit(-1 if table[name].dtype.is_integer() else "x").alias(name)),
        table.rename({name: f"{name}2"}),
    ]
    if table[name].dtype.is_integer():
        choices.append(table.with_columns(pl.lit(2**40).cast(table[name].dtype, strict=False).alias(name)))
    choices[int(rng.integers(len(choices)))].write_parquet(path)


INSIDE: dict[str, Callable[[Path, np.random.Generator], None]] = {
    ".json": _json,
    ".pkl": _pickle,
    ".npz": _npz,
    ".mat": _mat,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".yaml": _yaml,
    ".safetensors": _safetensors,
    ".pt": _zip_of_torch,
    ".ckpt": _zip_of_torch,
    ".parquet": _parquet,
}


def damage(path: Path, content: bytes, rng: np.random.Generator) -> str:
    """Writes a damaged `content` to `path` and says how."""
    path.write_bytes(content)
    if path.suffix in INSIDE and rng.random() < 0.6:
        INSIDE[path.suffix](path, rng)
        return "other type"
    kind = BYTES[int(rng.integers(len(BYTES)))]
    path.write_bytes(kind(content, rng))
    return kind.__name__


def crashes(path: Path, read: Callable[[], object], seeds: Iterable[int]) -> list[str]:
    """What `read` raised beside the project's own error while `path` was damaged, with the seed that repeats it.

    A file that keeps its reader busy for longer than `PATIENCE` fails the test.
    """
    whole, found = path.read_bytes(), []
    before = signal.signal(signal.SIGALRM, _give_up)
    try:
        for seed in seeds:
            how = damage(path, whole, np.random.default_rng(seed))
            signal.alarm(PATIENCE)
            try:
                read()
            except PoseRftError as error:
                assert len(str(error)) < 1000, str(error)
            except Exception:
                found.append(f"{path.name}, seed {seed} ({how}):\n{traceback.format_exc(limit=-3)}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        path.write_bytes(whole)
    return found


def _give_up(*_: object) -> None:
    pytest.fail(f"a damaged file was read for {PATIENCE} s")
