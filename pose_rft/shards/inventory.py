"""What lies in a release, as a digest of names, sizes and times: cheap enough to ask before every run."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pose_rft.errors import PoseRftError


@dataclass(frozen=True)
class Inventory:
    """files: how many; bytes: in total; digest: changes with any name, size or time."""

    dataset: str
    digest: str
    files: int
    bytes: int


def take_inventory(dataset: str, root: Path, files: Iterable[Path], state: str | None = None) -> Inventory:
    """Looks at names (relative to `root`), sizes and times; a `state` takes the place of the times.

    Raises:
        PoseRftError: no file at all, or one that cannot be looked at.
    """
    digest, count, total = hashlib.sha256((state or "").encode()), 0, 0
    for path in sorted(files):
        try:
            found = path.stat()
        except OSError as error:
            raise PoseRftError(f"{dataset}: {path} cannot be read ({error.strerror}); mend its permission.") from None
        time = found.st_mtime_ns if state is None else 0
        digest.update(f"{os.path.relpath(path, root)}\0{found.st_size}\0{time}\n".encode(errors="surrogateescape"))
        count, total = count + 1, total + found.st_size
    if count == 0:
        raise PoseRftError(f"{dataset}: the release holds no file; see docs/data.md for what belongs in its folder.")
    return Inventory(dataset, digest.hexdigest(), count, total)


def files_below(folder: Path) -> Iterable[Path]:
    """Every file below `folder`, in no order; nothing where there is no folder."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)
