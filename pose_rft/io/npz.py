""".npz files of releases: what they declare is checked before it is read, and numpy itself never unpickles.

Arrays of numbers and text are numpy's business; arrays of Python objects (HumanData's `smpl`, HMR2.0's `extra_info`)
are pickles inside the archive and go through `pose_rft.io.unpickle`, which lets only data through.
"""

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pose_rft.core.errors import PoseRftError
from pose_rft.io import limits
from pose_rft.io.unpickle import read_pickle_stream

MOST_INFLATION = 300  # deflate reaches 1,030 on zeros; arrays of labels stay below 50
FREE = 1 << 26  # bytes that anything may inflate to
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def names_in_npz(path: Path) -> set[str]:
    """The names of the arrays in a file.

    Raises:
        PoseRftError: no such file, or not an .npz.
    """
    with _opened(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays called `names` that are there (all of them without `names`).

    Raises:
        PoseRftError: no such file, not an .npz, damaged, sizes that cannot be true, or an object array that names code.
    """
    wanted = None if names is None else set(names)
    with _opened(path) as archive:
        return {
            name: _read_member(archive, member, path)
            for member in archive.infolist()
            if (name := member.filename.removesuffix(".npy")) and (wanted is None or name in wanted)
        }


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what goes wrong in the block becomes one sentence."""
    try:
        with limits.bounded(path), zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise PoseRftError(f"{path} does not exist.") from None
    except PoseRftError:
        raise
    except OSError as error:
        raise PoseRftError(f"{path} cannot be read ({error.strerror or error}); download it again.") from None
    except Exception as error:  # zipfile, zlib and numpy's header parser share no base class
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not a readable .npz ({cause}); download it again.") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    if member.file_size > FREE + MOST_INFLATION * member.compress_size:
        raise PoseRftError(
            f"{path}: {member.filename!r:.80} declares {member.file_size} bytes in {member.compress_size} stored ones, "
            "so it is no data; download it again."
        )
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        _, _, dtype = HEADERS[version](file)
        if dtype.kind == "c":  # numpy would drop half of each number where it is asked for floats
            raise PoseRftError(f"{path}: {member.filename!r:.80} is complex, expected real numbers; download it again.")
        if dtype.hasobject:
            return np.asarray(read_pickle_stream(file, f"{path}, {member.filename}"), object)
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
