""".npz files of releases: arrays of numbers and text, never pickles; what they declare is checked before it is read."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pose_rft.errors import PoseRftError
from pose_rft.io import limits

MOST_INFLATION = 300  # deflate reaches 1,030 on zeros; arrays of labels stay below 50
FREE = 1 << 26  # bytes that anything may inflate to


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays called `names` that are there (all of them without `names`).

    Raises:
        PoseRftError: no such file, not an .npz, damaged, an array of Python objects, or sizes that cannot be true.
    """
    wanted = None if names is None else set(names)
    try:
        with limits.bounded(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.file_size > FREE + MOST_INFLATION * member.compress_size:
                        raise PoseRftError(
                            f"{path}: {member.filename!r} declares {member.file_size} bytes in {member.compress_size} "
                            "stored ones, so it is no data; download it again."
                        )
            with np.load(path, allow_pickle=False) as content:
                return {name: content[name] for name in content.files if wanted is None or name in wanted}
    except FileNotFoundError:
        raise PoseRftError(f"{path} does not exist.") from None
    except PoseRftError:
        raise
    except OSError as error:
        raise PoseRftError(f"{path} cannot be read ({error.strerror or error}); download it again.") from None
    except Exception as error:  # zipfile, zlib and numpy's header parser share no base class
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not a readable .npz ({cause}); download it again.") from None
