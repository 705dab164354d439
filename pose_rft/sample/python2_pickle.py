"""Writes pickles as Python 2 and numpy 1 wrote them, the format of the 3DPW, MoSh and SMPL files.

Protocol 2, byte strings for text, and the old module names (`numpy.core`, `__builtin__`, `copy_reg`,
`scipy.sparse.csc`), so a reader that forgets `encoding="latin1"` fails on the miniature as it does on the real files.
`Chumpy` represents an array in an SMPL v1.0.0 file: it is written as a `chumpy.ch.Ch` with its state.
Source: docs/formats.md, Pickles and MATLAB files.
"""

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from pose_rft.io.atomic import write_bytes


class Chumpy:
    """An array that is pickled as the object `chumpy.ch.Ch(x)`."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


# The pure-Python pickler: unlike the C one, it lets a subclass choose the opcodes.
PurePickler: Any = pickle._Pickler


class _Python2Pickler(PurePickler):
    dispatch: ClassVar[dict[type, Any]] = dict(PurePickler.dispatch)

    def _global(self, module: str, name: str) -> None:
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    def _bytes(self, data: bytes) -> None:
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    def save_text(self, value: str) -> None:
        self._bytes(value.encode("latin1"))
        self.memoize(value)

    def save_binary(self, value: bytes) -> None:
        self._bytes(value)
        self.memoize(value)

    def save_array(self, value: np.ndarray) -> None:
        """As numpy 1 pickled it: `_reconstruct(ndarray, (0,), 'b')`, then (version, shape, dtype, order, bytes)."""
        if value.dtype.hasobject:
            raise ValueError("object arrays are not part of the formats that this writes")
        self._global("numpy.core.multiarray", "_reconstruct")
        self._global("numpy", "ndarray")
        self.save((0,))
        self.save(b"b")
        self.write(pickle.TUPLE3 + pickle.REDUCE)
        self.memoize(value)
        fortran = bool(value.flags.f_contiguous and not value.flags.c_contiguous)
        self.save((1, value.shape, value.dtype, fortran, value.tobytes("F" if fortran else "C")))
        self.write(pickle.BUILD)

    def save_dtype(self, value: np.dtype) -> None:
        order = "|" if value.itemsize == 1 else "<"
        if value.str[0] == ">":
            raise ValueError("big-endian arrays are not part of the formats that this writes")
        self._global("numpy", "dtype")
        self.save((value.str[1:], 0, 1))
        self.write(pickle.REDUCE)
        self.memoize(value)
        self.save((3, order, None, None, None, -1, -1, 0))
        self.write(pickle.BUILD)

    def save_scalar(self, value: np.generic) -> None:
        self._global("numpy.core.multiarray", "scalar")
        self.save((value.dtype, value.tobytes()))
        self.write(pickle.REDUCE)
        self.memoize(value)

    def _old_style_object(self, value: Any, module: str, name: str, state: dict[str, Any]) -> None:
        self._global("copy_reg", "_reconstructor")
        self._global(module, name)
        self._global("__builtin__", "object")
        self.save(None)
        self.write(pickle.TUPLE3 + pickle.REDUCE)
        self.memoize(value)
        self.save(state)
        self.write(pickle.BUILD)

    def save_sparse(self, value: scipy.sparse.csc_matrix) -> None:
        state = {
            "_shape": tuple(int(n) for n in value.shape),
            "data": value.data,
            "indices": value.indices.astype(np.int32),
            "indptr": value.indptr.astype(np.int32),
            "maxprint": 50,
        }
        self._old_style_object(value, "scipy.sparse.csc", "csc_matrix", state)

    def save_chumpy(self, value: Chumpy) -> None:
        self._old_style_object(value, "chumpy.ch", "Ch", {"x": value.x, "_dirty_vars": set(), "_itr": None})

    def save_set(self, value: set[Any]) -> None:
        self._global("__builtin__", "set")
        self.save((sorted(value),))
        self.write(pickle.REDUCE)
        self.memoize(value)

    dispatch[str] = save_text
    dispatch[bytes] = save_binary
    dispatch[set] = save_set
    dispatch[np.ndarray] = save_array
    dispatch[np.dtype] = save_dtype
    dispatch[scipy.sparse.csc_matrix] = save_sparse
    dispatch[Chumpy] = save_chumpy

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        # In numpy 2 every scalar type and dtype has its own class, so check for the base classes.
        known = self.memo.get(id(obj))
        if known is None and isinstance(obj, np.generic):
            self.save_scalar(obj)
        elif known is None and isinstance(obj, np.dtype):
            self.save_dtype(obj)
        else:
            super().save(obj, save_persistent_id)


def dumps(content: Any) -> bytes:
    """Returns `content` (containers, text, numbers, numpy arrays, csc matrices, `Chumpy`) as a Python 2 pickle.

    Raises:
        ValueError: an object array or a big-endian array.
    """
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def dump(content: Any, path: Path) -> None:
    """Writes `dumps(content)` to `path` atomically."""
    write_bytes(path, dumps(content))
