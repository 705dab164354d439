"""Digests a release's file names, sizes and times: cheap enough to compute before and during every run."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError


@dataclass(frozen=True)
class Inventory:
    """files: number of files; bytes: their total size; digest: changes with any name, size or time."""

    dataset: str
    digest: str
    files: int
    bytes: int


def take_inventory(dataset: str, root: Path, files: Iterable[Path | str], state: str | None = None) -> Inventory:
    """Digests names (relative to `root`), sizes and modification times; `state`, if given, replaces the times.

    Raises:
        PoseRftError: there are no files, or one cannot be accessed.
    """
    digest, count, total = hashlib.sha256((state or "").encode()), 0, 0
    below = f"{root}{os.sep}"
    for path in sorted(map(str, files)):  # strings: comparing Path objects is many times slower
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError as error:
            raise PoseRftError(f"{dataset}: {path} cannot be read ({error.strerror}); fix its permission.") from None
        time = found.st_mtime_ns if state is None else 0
        name = path.removeprefix(below) if path.startswith(below) else os.path.relpath(path, root)
        digest.update(f"{name}\0{found.st_size}\0{time}\n".encode(errors="surrogateescape"))
        count, total = count + 1, total + found.st_size
    if count == 0:
        raise PoseRftError(
            f"{dataset}: its folder in {root} holds no file of the release; see docs/data.md for what belongs there."
        )
    return Inventory(dataset, digest.hexdigest(), count, total)


class ReleaseMonitor:
    """Detects changes of a release while it is read: shards made before and after would be inconsistent.

    dataset: its name, for the message; files: lists the release's files, and is called again for every check.
    """

    SECONDS_BETWEEN_LOOKS = 30.0
    SHARE_OF_TIME = 0.02  # of the run that checks may take; checking a million files takes seconds

    def __init__(self, dataset: str, files: Callable[[], Iterable[Path]]) -> None:
        self.dataset, self.files = dataset, files
        self._state = self._look()

    @property
    def state(self) -> str:
        """sha256 of the release's initial state."""
        return hashlib.sha256("\n".join(f"{k}\0{v}" for k, v in sorted(self._state.items())).encode()).hexdigest()

    def check_now_and_then(self) -> None:
        """Calls `check`, unless the last check was too recent."""
        wait = max(self.SECONDS_BETWEEN_LOOKS, self._took / self.SHARE_OF_TIME)
        if time.monotonic() - self._last > wait:
            self.check()

    def check(self) -> None:
        """Stops the conversion if a file changed while it was read.

        Raises:
            PoseRftError: a file was added, removed or written since the watch began.
        """
        now = self._look()
        if changed := sorted(k for k in {*self._state, *now} if self._state.get(k) != now.get(k)):
            more = f" and {len(changed) - 1} other folders" if len(changed) > 1 else ""
            raise PoseRftError(
                f"{self.dataset}: files in {changed[0]}{more} changed while the release was read; wait until nothing "
                "writes there and run again, which starts anew."
            )

    def _look(self) -> Mapping[str, str]:
        """Returns folder → digest of the names, sizes and times of its files."""
        began = time.monotonic()
        folders: dict[str, Any] = {}
        for path in sorted(self.files(), key=str):  # strings: comparing Path objects is many times slower
            folder, name = os.path.split(str(path))
            digest = folders.setdefault(folder, hashlib.sha256())
            try:
                found = path.stat()
                digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
            except OSError as error:
                digest.update(f"{name}\0{error.errno}\n".encode(errors="surrogateescape"))
        self._last = time.monotonic()
        self._took = self._last - began
        return {folder: digest.hexdigest() for folder, digest in folders.items()}
