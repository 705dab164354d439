"""Third-party .npy and .npz files: declared sizes are checked before reading, and numpy never unpickles.

Arrays of numbers and text are read as numpy stores them. Arrays of Python objects (HumanData's `smpl`, HMR2.0's
`extra_info`) are pickles inside the archive and go through `pose_rft.io.unpickle`, which accepts only plain data.
"""

import io
import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits
from pose_rft.io.unpickle import parse_pickle

MOST_INFLATION = 300  # deflate reaches a ratio of 1,030 on zeros; arrays of labels stay below 50
FREE = 1 << 26  # bytes that any member may inflate to
MOST_MEMBERS = 10_000
MOST = 1 << 33  # bytes of all requested arrays together
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def names_in_npz(path: Path) -> set[str]:
    """Returns the names of the arrays in a file.

    Raises:
        PoseRftError: no such file, or not an .npz.
    """
    with _opened(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def read_npz(path: Path, names: Iterable[str] | None = None, most: int = MOST) -> dict[str, np.ndarray]:
    """Reads those of the arrays `names` that exist (without `names`: all), of at most `most` bytes together.

    Raises:
        PoseRftError: no such file, not an .npz, damaged, impossible sizes, or an object array that refers to code.
    """
    wanted = None if names is None else set(names)
    with _opened(path) as archive:
        members = {
            name: member
            for member in archive.infolist()
            if (name := member.filename.removesuffix(".npy")) and (wanted is None or name in wanted)
        }
        _check_sizes(list(members.values()), path, most)
        return {name: _read_member(archive, member, path) for name, member in members.items()}


def read_npy(path: Path, most: int = MOST) -> np.ndarray:
    """Reads the array of numbers or text in a file of at most `most` bytes.

    Raises:
        PoseRftError: no such file, not an .npy, damaged, or an array of Python objects or complex numbers.
    """
    content = door.read_file(path, most)
    with limits.bounded(path, len(content)), _as_sentence(path, ".npy"):
        return _array(io.BytesIO(content), len(content), str(path))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens the archive; errors in the block become one-sentence PoseRftErrors."""
    with (
        door.open_file(path) as file,
        limits.bounded(path),
        _as_sentence(path, ".npz"),
        zipfile.ZipFile(file) as archive,
    ):
        if len(archive.filelist) > MOST_MEMBERS:
            raise PoseRftError(f"{path} holds {len(archive.filelist)} arrays, so it is no data; download it again.")
        yield archive


@contextmanager
def _as_sentence(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (PoseRftError, MemoryError, RecursionError):
        raise
    except OSError as error:
        raise PoseRftError(f"{path} cannot be read ({error.strerror or error}); download it again.") from None
    except Exception as error:  # zipfile, zlib and numpy's header parser share no base class
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not a readable {kind} ({cause}); download it again.") from None


def _check_sizes(members: list[zipfile.ZipInfo], path: Path, most: int) -> None:
    for member in members:
        if member.file_size > FREE + MOST_INFLATION * member.compress_size:
            raise PoseRftError(
                f"{path}: {member.filename!r:.80} declares {member.file_size} bytes in {member.compress_size} stored "
                "ones, so it is no data; download it again."
            )
    if (total := sum(member.file_size for member in members)) > most:
        raise PoseRftError(f"{path} declares arrays of {total} bytes, expected at most {most}; is it the right file?")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    with archive.open(member) as file:
        return _array(file, member.file_size, f"{path}, {member.filename:.80}")


def _array(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """Reads the array in the `size` bytes of an open .npy; its header is checked before its numbers are read."""
    version = np.lib.format.read_magic(file)
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.kind == "c":  # numpy would drop the imaginary part on conversion to float
        raise PoseRftError(f"{where} is complex, expected real numbers; download it again.")
    if dtype.hasobject:
        return np.asarray(parse_pickle(file.read(), where, objects=True), object)
    if dtype.names is None and not dtype.itemsize:
        raise PoseRftError(f"{where} holds text of no length; download it again.")
    count = math.prod(shape)
    if not all(n >= 0 for n in shape) or count * dtype.itemsize > size:
        raise PoseRftError(f"{where} declares {shape} numbers in {size} bytes; download it again.")
    content = np.empty(count * dtype.itemsize, np.uint8)
    view, done = memoryview(content), 0  # type: ignore[arg-type]
    while done < len(view):
        if not (read := file.readinto(view[done:])):  # type: ignore[attr-defined]
            raise PoseRftError(f"{where} is cut; download it again.")
        done += read
    return content.view(dtype).reshape(shape, order="F" if fortran else "C")
