"""The only place that unpickles: data of releases and SMPL model files, never code.

3DPW sequences, MoSh fits and SMPL models are Python 2 pickles (text as latin1) that hold numpy arrays, scipy.sparse
matrices and, in SMPL v1.0.0, `chumpy` objects. Only the constructors of those are let through; a pickle can name any
function of the machine, so everything else is refused. chumpy itself (no Python 3.11) is replaced by a small stand-in
that keeps the array. What a pickle makes Python allocate is bounded as well: arrays are born empty, memo numbers and
lengths must fit the file. Source of the formats: docs of the releases; dataset notes sections 0.4 and 16.
"""

import codecs
import collections
import io
import pickle
import pickletools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.sparse

from pose_rft.core.errors import PoseRftError
from pose_rft.io import limits


class ChumpyArray:
    """What remains of a `chumpy.ch.Ch` (or one of its subclasses): its state, and the array that it stood for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        for name in ("x", "a", "_x"):  # chumpy.ch.Ch keeps x; chumpy.reordering.* keep the array they view as a
            if name in self.state:
                return np.asarray(plain(self.state[name]), dtype=dtype)
        raise PoseRftError(f"A chumpy object holds {sorted(self.state)} but no array; export the model without chumpy.")


RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]


class _NdarrayName:
    """What `numpy.ndarray` stands for in a pickle: a name to hand to `_reconstruct`, not a constructor to call."""


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """`numpy.core.multiarray._reconstruct`: arrays are born empty and get shape and bytes together, by BUILD."""
    if kind is not _NdarrayName or shape not in ((0,), [0], 0):
        raise PoseRftError(f"A pickle makes {kind!r} of shape {shape!r}, expected an empty array; refusing to read it.")
    return RECONSTRUCT(np.ndarray, (0,), code)


def _real_dtype(*state: Any) -> np.dtype:
    """`numpy.dtype`. No release has complex numbers, and numpy would drop half of each where it is asked for floats."""
    found = np.dtype(*state)
    if found.kind == "c":
        raise PoseRftError("A pickle holds complex numbers, expected real ones; download it again.")
    return found


def _numpy_globals() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for core in ("numpy.core", "numpy._core"):
        found[core + ".multiarray", "_reconstruct"] = _empty_array
        found[core + ".multiarray", "scalar"] = np.float64(0).__reduce__()[0]
        found[core + ".numeric", "_frombuffer"] = np.ndarray.__reduce_ex__(np.zeros(1), 5)[0]
    found["numpy", "ndarray"] = _NdarrayName
    found["numpy", "dtype"] = _real_dtype
    return found


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stands in for `_codecs.encode`, by which Python 3 writes bytes at protocol 2; no other codec is looked up."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise PoseRftError(f"A pickle asks for the codec {encoding!r}, expected latin1; refusing to read it.")
    return text.encode("latin1")


SPARSE = {kind: getattr(scipy.sparse, f"{kind}_matrix") for kind in ("csc", "csr", "coo")}


def _reconstructor(cls: type, base: type, state: Any) -> Any:
    """`copyreg._reconstructor`, for sparse matrices and chumpy objects only."""
    if base is not object or cls not in (ChumpyArray, *SPARSE.values()):
        raise PoseRftError(f"A pickle rebuilds {cls!r} from {base!r}, expected a sparse matrix; refusing to read it.")
    return object.__new__(cls)


BUILTIN_MODULES = ("__builtin__", "builtins")
ALLOWED: dict[tuple[str, str], Any] = {
    **_numpy_globals(),
    ("_codecs", "encode"): _latin1_bytes,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    **{(module, kind.__name__): kind for module in BUILTIN_MODULES for kind in (object, set, frozenset)},
    **{
        (f"scipy.sparse{middle}{kind}", f"{kind}_matrix"): matrix
        for middle in (".", "._")
        for kind, matrix in SPARSE.items()
    },
}


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path | str, extra: dict[tuple[str, str], Any]) -> None:
        super().__init__(file, encoding="latin1")
        self._path, self._allowed = path, ALLOWED | extra

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed:
            return self._allowed[module, name]
        if module.split(".")[0] == "chumpy":
            return ChumpyArray
        raise PoseRftError(
            f"{self._path} is a pickle that names {module}.{name}, which is not data (blocked); "
            "get the file from its official source, and report the class if it is there too."
        )

    def persistent_load(self, pid: Any) -> Any:
        raise PoseRftError(f"{self._path} is a pickle with an external reference {pid!r}, expected plain data.")


def read_pickle(path: Path, extra_allowed: Iterable[tuple[str, str, Any]] = ()) -> Any:
    """The content of a pickle as plain Python containers, numpy arrays, sparse matrices and `ChumpyArray`s.

    Args:
        path: the file; Python 2 text is decoded as latin1.
        extra_allowed: (module, name, object to use) for a release that holds one more harmless class.
    Raises:
        PoseRftError: no such file, not a pickle, truncated, or it names a class or function that is not data.
    """
    try:
        with open(path, "rb") as file:
            return read_pickle_stream(file, path, extra_allowed)
    except FileNotFoundError:
        raise PoseRftError(f"{path} does not exist.") from None
    except OSError as error:
        raise PoseRftError(f"{path} cannot be read ({error.strerror}).") from None


def read_pickle_stream(file: IO[bytes], where: Path | str, extra_allowed: Iterable[tuple[str, str, Any]] = ()) -> Any:
    """As `read_pickle`, for a pickle inside another file (a tar member, an object array of an .npz).

    Args:
        file: an open file that stands at the pickle's first byte; where: what an error calls it.
    Raises:
        PoseRftError: not a pickle, truncated, or it names a class or function that is not data.
        OSError: the file cannot be read.
    """
    content = file.read()
    extra = {(module, name): value for module, name, value in extra_allowed}
    try:
        with limits.bounded(where, len(content)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy deprecates what old pickles do (`align=0`)
            _check_memo(content)
            return _RestrictedUnpickler(io.BytesIO(content), where, extra).load()
    except (PoseRftError, OSError):
        raise
    except Exception as error:  # a damaged pickle raises nearly anything, from EOFError to TypeError
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{where} is not a readable pickle ({cause}); download it again.") from None


def _check_memo(content: bytes) -> None:
    """Python's unpickler makes its memo as long as the largest number asks for: 4 bytes may cost 64 GB.

    Raises:
        ValueError: a memo number that a pickle of this length cannot have reached, or not a pickle.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ValueError(f"memo number {argument} in {len(content)} bytes")


def plain(value: Any) -> Any:
    """A `ChumpyArray` as the numpy array that it stood for; anything else unchanged."""
    return np.asarray(value) if isinstance(value, ChumpyArray) else value
