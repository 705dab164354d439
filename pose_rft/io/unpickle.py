"""Reads pickles of releases and SMPL model files as plain data: no code is run and `pickle` is not used.

3DPW sequences, MoSh fits and SMPL models are Python 2 pickles (text as latin1) that hold numpy arrays, scipy.sparse
matrices and, in SMPL v1.0.0, `chumpy` objects. `pickle_machine` runs their opcodes. This module lists the few names
that a pickle may use, each with a builder that checks shapes, types and indices before it creates anything. numpy's own
`dtype` and `_reconstruct`, scipy's matrices and chumpy (no Python 3.11) are not called at all. Sources of the formats:
docs of the releases; docs/formats.md, Pickles and MATLAB files; numpy's `ndarray.__reduce__`.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits
from pose_rft.io.pickle_machine import Machine, Name, NotData, Token, scalar

DTYPE = re.compile(r"[<>=|]?([biufSU?O])([0-9]*)")
WIDTHS = {"b": (1,), "?": (0, 1), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}
MOST_DIMENSIONS = 8
MOST_DENSE = 1 << 24  # elements of a sparse matrix made dense; SMPL-X's regressor has 600,000
DEEPEST = 100
# An object that is referenced twice counts twice: a few bytes may describe nested lists too large to write out.
MOST_PER_BYTE, MOST_FREE = 64, 1 << 24


class ChumpyArray:
    """Stand-in for a `chumpy.ch.Ch` (or a subclass): its state, and the array that it represents."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        for name in ("x", "a", "_x"):  # chumpy.ch.Ch stores `x`; chumpy.reordering.* store the array they view as `a`
            if name in self.state:
                return np.asarray(plain(self.state[name]), dtype=dtype)
        raise PoseRftError(f"A chumpy object holds {sorted(self.state)} but no array; export the model without chumpy.")


class SparseMatrix:
    """Stand-in for a `scipy.sparse` matrix (csc, csr or coo): its state, and conversion to a dense array."""

    def __init__(self, kind: str) -> None:
        self.kind, self.state = kind, {}  # type: ignore[var-annotated]

    def toarray(self) -> np.ndarray:
        """Returns the matrix as a dense array.

        Raises:
            PoseRftError: its arrays do not fit together, or its indices lie outside the matrix.
        """
        try:
            return self._dense()
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            raise PoseRftError(f"A sparse {self.kind} matrix is damaged ({error}); get the file again.") from None

    def _dense(self) -> np.ndarray:
        rows, columns = shape = _shape(self.state["_shape" if "_shape" in self.state else "shape"])
        if rows * columns > MOST_DENSE:
            raise ValueError(f"shape {shape}")
        data = np.asarray(self.state["data"])
        if data.ndim != 1 or data.dtype.kind not in "biuf":
            raise ValueError("its data are no row of numbers")
        if self.kind == "coo":
            both = self.state["coords"] if "coords" in self.state else (self.state["row"], self.state["col"])
            row, column = (_indices(part, len(data), limit) for part, limit in zip(both, shape, strict=True))
        else:
            lines, across = (columns, rows) if self.kind == "csc" else (rows, columns)
            ends = _indices(self.state["indptr"], lines + 1, len(data) + 1)
            if ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
                raise ValueError("its index pointers do not cover its data")
            line = np.repeat(np.arange(lines), np.diff(ends))
            other = _indices(self.state["indices"], len(data), across)
            row, column = (other, line) if self.kind == "csc" else (line, other)
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (row, column), data)
        return dense


def _indices(value: Any, length: int, limit: int) -> np.ndarray:
    found = np.asarray(value)
    if found.shape != (length,) or found.dtype.kind not in "iu":
        raise ValueError(f"expected {length} indices")
    found = found.astype(np.int64)
    if length and (found.min() < 0 or found.max() >= limit):
        raise ValueError(f"an index outside 0 to {limit - 1}")
    return found


class _Dtype(Token):
    """A numpy dtype, complete once its byte order is set."""

    def __init__(self, text: str) -> None:
        match = DTYPE.fullmatch(text)
        if match is None:
            raise NotData(f"the array type {text!r:.40}, expected numbers or text")
        kind, width = match[1], int(match[2][:9] or 0)
        if kind in WIDTHS and width not in WIDTHS[kind]:
            raise NotData(f"the array type {text!r:.40}, expected numbers or text")
        self.kind, self.text, self.order = kind, f"{kind}{width or ''}", text[0] if text[0] in "<>" else "<"

    @property
    def numpy(self) -> np.dtype:
        if self.kind == "O":
            raise NotData("an array of Python objects")
        return np.dtype(self.order + self.text)

    def set_state(self, state: Any) -> None:
        """Sets (version, byte order, no subarray, no names, no fields, size, alignment, flags[, metadata])."""
        if not isinstance(state, tuple) or not 8 <= len(state) <= 9 or state[2:5] != (None, None, None):
            raise NotData("an array type with fields")
        if state[1] not in ("<", ">", "|", "="):
            raise NotData("an array type without byte order")
        self.order = state[1] if state[1] in "<>" else "<"


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > MOST_DIMENSIONS:
        raise ValueError("a shape that is no short tuple")
    if not all(type(n) is int and 0 <= n < 1 << 40 for n in value):
        raise ValueError("a shape of something else than lengths")
    return tuple(value)


def _array(dtype: _Dtype, shape: Any, fortran: Any, raw: Any) -> np.ndarray:
    """Builds an array from these bytes, after checking shape and type."""
    kind, shape = dtype.numpy, _shape(shape)
    content = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(content, bytes):
        raise NotData("an array whose numbers are no bytes")
    if not kind.itemsize or math.prod(shape) * kind.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and type {kind} in {len(content)} bytes")
    return np.ndarray(shape, kind, content, order="F" if fortran else "C").copy("K")


class _Builders:
    """The builders for the names in one pickle. `objects`: allow arrays of Python objects (in .npz files)."""

    def __init__(self, where: Path | str, objects: bool) -> None:
        self.where, self.objects = where, objects
        self.unfinished: dict[int, Any] = {}  # by identity; objects that still wait for their state
        self.calls = self._calls()

    def name(self, module: str, name: str) -> Name:
        if module.split(".")[0] == "chumpy":
            return Name(name, None, lambda: self._await(ChumpyArray()))
        sparse = re.fullmatch(r"scipy\.sparse\._?(csc|csr|coo)", module)
        if sparse and name == f"{sparse[1]}_matrix":
            return Name(name, None, lambda: self._await(SparseMatrix(sparse[1])))
        call = self.calls.get((re.sub(r"^numpy\._?core\b", "numpy.core", module), name))
        if call is None:
            raise PoseRftError(
                f"{self.where} is a pickle that names {module[:80]!s}.{name[:80]!s}, which is not data (blocked); "
                "get the file from its official source, and report the class if it is there too."
            )
        return Name(name, call, None)

    def _calls(self) -> dict[tuple[str, str], Callable[..., Any]]:
        return {
            ("numpy.core.multiarray", "_reconstruct"): self._empty_array,
            ("numpy.core.multiarray", "scalar"): _number,
            ("numpy.core.numeric", "_frombuffer"): lambda raw, dtype, shape, order: _array(
                _typed(dtype), shape, order == "F", raw
            ),
            ("numpy", "ndarray"): _never,
            ("numpy", "dtype"): _dtype,
            ("_codecs", "encode"): _latin1_bytes,
            ("collections", "OrderedDict"): _ordered,
            **{(module, "_reconstructor"): self._new for module in ("copy_reg", "copyreg")},
            **{(module, "object"): _never for module in ("__builtin__", "builtins")},
            **{(module, "bytes"): _no_bytes for module in ("__builtin__", "builtins")},
            **{(module, "set"): _set for module in ("__builtin__", "builtins")},
            **{(module, "frozenset"): _set for module in ("__builtin__", "builtins")},
        }

    def _await(self, value: Any) -> Any:
        self.unfinished[id(value)] = value
        return value

    def _empty_array(self, kind: Any, shape: Any, code: Any) -> Any:
        """`numpy.core.multiarray._reconstruct`: arrays start empty, and BUILD sets shape and bytes together."""
        if not isinstance(kind, Name) or kind.name != "ndarray" or shape != (0,):
            raise NotData("an array that is not born empty")
        return self._await(_Unfinished())

    def _new(self, kind: Any, base: Any, state: Any) -> Any:
        """`copyreg._reconstructor`, for sparse matrices and chumpy objects."""
        if not isinstance(kind, Name) or kind.new is None or getattr(base, "name", None) != "object":
            raise NotData("an object rebuilt from another class")
        return kind.new()

    def build(self, target: Any, state: Any) -> None:
        """The opcode BUILD."""
        if isinstance(target, _Dtype):
            target.set_state(state)
        elif self.unfinished.pop(id(target), None) is None:
            raise NotData(f"a state for a {type(target).__name__}")
        elif isinstance(target, _Unfinished):
            target.set_state(state, self.objects)
        elif type(state) is dict and all(type(key) is str for key in state):
            target.state = state
        else:
            raise NotData("a state that is no dictionary")


class _Unfinished:
    """Placeholder for an array in lists and the memo, until `_Finish` replaces it by the array."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None
        self.objects: list[Any] | None = None

    def set_state(self, state: Any, objects: bool) -> None:
        """Sets the state (version, shape, type, Fortran order, bytes or the list of objects)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise NotData("an array without shape, type and bytes")
        _, shape, dtype, fortran, raw = state
        if _typed(dtype).kind != "O" or not objects:
            self.array = _array(_typed(dtype), shape, fortran, raw)
            return
        if type(raw) is not list or len(raw) != math.prod(_shape(shape)):
            raise NotData("an array of Python objects without its list")
        self.objects, self.shape, self.order = raw, _shape(shape), "F" if fortran else "C"

    def of_objects(self, items: list[Any]) -> np.ndarray:
        array = np.empty(len(items), object)
        for place, item in enumerate(items):
            array[place] = item
        return array.reshape(self.shape, order=self.order)  # type: ignore[call-overload]


def _typed(dtype: Any) -> _Dtype:
    if not isinstance(dtype, _Dtype):
        raise NotData("an array without a type")
    return dtype


def _dtype(text: Any, *_: Any) -> _Dtype:
    if isinstance(text, str) and text[:1] in "cFDG":
        raise PoseRftError("A pickle holds complex numbers, expected real ones; download it again.")
    if not isinstance(text, str):
        raise NotData("an array type that is no text")
    return _Dtype(text)


def _number(dtype: Any, raw: Any) -> Any:
    """`numpy.core.multiarray.scalar`."""
    return _array(_typed(dtype), (1,), False, raw)[0]


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, with which Python 3 writes bytes at protocol 2; only latin1 is accepted."""
    if encoding not in ("latin1", "latin-1", "iso-8859-1") or not isinstance(text, str):
        raise NotData(f"the codec {encoding!r:.40}, expected latin1")
    return text.encode("latin1")


def _ordered(*items: Any) -> dict[Any, Any]:
    if len(items) > 1 or (items and type(items[0]) is not list):
        raise NotData("a dictionary of something else than a list")
    return {scalar(key): value for key, value in (items[0] if items else [])}


def _set(items: Any = ()) -> set[Any]:
    if type(items) not in (list, tuple):
        raise NotData("a set of something else than a list")
    return {scalar(item) for item in items}


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise NotData("bytes made of something")
    return b""


def _never(*_: Any) -> Any:
    raise NotData("a call of a class")


def read_pickle(path: Path) -> Any:
    """Reads a pickle as Python containers, numpy arrays of plain types, `SparseMatrix`s and `ChumpyArray`s.

    Raises:
        PoseRftError: no such file, not a pickle, truncated, or it names a class or function that is not allowed.
    """
    return parse_pickle(door.read_file(path), path)


def read_pickle_stream(file: IO[bytes], where: Path | str) -> Any:
    """As `read_pickle`, for a pickle inside another file (a tar member); `where` names it in errors."""
    return parse_pickle(file.read(), where)


def parse_pickle(content: bytes, where: Path | str, objects: bool = False) -> Any:
    """As `read_pickle`, for bytes that came from `where`; `objects`: arrays may hold Python objects."""
    builders = _Builders(where, objects)
    try:
        with limits.bounded(where, len(content)):
            found = Machine(content, builders.name, builders.build).run()
            return _Finish(MOST_FREE + MOST_PER_BYTE * len(content)).whole(found)
    except NotData as error:
        raise PoseRftError(f"{where} is a pickle with {error}, expected plain data; refusing to read it.") from None
    except PoseRftError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything, from IndexError to TypeError
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{where} is not a readable pickle ({cause}); download it again.") from None


class _Finish:
    """Replaces placeholders by their arrays, and limits the size that the content has without shared references."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.done: dict[int, tuple[Any, Any, int]] = {}  # by identity: the container, its replacement, its size
        self.inside: set[int] = set()

    def whole(self, value: Any) -> Any:
        return self._finished(value, 0)[0]

    def _finished(self, value: Any, depth: int) -> tuple[Any, int]:
        """Returns the finished value and its size.

        Raises:
            NotData: a container that holds itself, is nested too deeply, or is too large.
        """
        if isinstance(value, (str, bytes)):
            return value, 8 + len(value)
        if isinstance(value, np.ndarray):
            return value, 8 + value.nbytes
        if not isinstance(value, (list, dict, tuple, ChumpyArray, SparseMatrix, _Unfinished)):
            return value, 8
        key = id(value)
        if key in self.done:
            return self.done[key][1:]
        if key in self.inside or depth > DEEPEST:
            raise NotData("a container that holds itself, or nests absurdly")
        self.inside.add(key)
        became, size = self._container(value, depth + 1)
        self.inside.discard(key)
        if size > self.most:
            raise NotData("containers that stand for more than they take")
        self.done[key] = value, became, size
        return became, size

    def _container(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, _Unfinished):
            if value.objects is None:
                if value.array is None:
                    raise NotData("an array without shape, type and bytes")
                return value.array, 8 + value.array.nbytes
            items, size = self._container(value.objects, depth)
            return value.of_objects(items), size
        if isinstance(value, tuple):
            parts = [self._finished(item, depth) for item in value]
            return tuple(item for item, _ in parts), 8 + sum(size for _, size in parts)
        size = 8
        content: Any = value.state if isinstance(value, (ChumpyArray, SparseMatrix)) else value
        for place in list(content) if isinstance(content, dict) else range(len(content)):
            item = content[place]
            if type(item) in (int, float):  # by far the most common
                size += 8
                continue
            content[place], own = self._finished(item, depth)
            size += own
            if size > self.most:
                break
        return value, size


def plain(value: Any) -> Any:
    """Returns a `ChumpyArray` as the numpy array that it represents; anything else unchanged."""
    return np.asarray(value) if isinstance(value, ChumpyArray) else value
