"""Finds the files of a release. Symbolic links are followed, because users link data sets into place.

`pathlib`'s `**` skips linked folders (Python 3.11), and a link to a parent folder would never end. Here every real
folder is visited once per search, whatever links lead to it. Files that macOS leaves behind (`._x.npz`, `.DS_Store`)
are ignored. Folders that cannot be opened are skipped: whoever needs a file in one reports it by name.
"""

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

ANYWHERE = "**"
WILD = re.compile(r"[*?\[]")


def files_below(folder: Path | str) -> Iterator[str]:
    """Yields every file below a folder, in no particular order; nothing if the folder does not exist."""
    for _, entries in _walk(str(folder)):
        yield from (entry.path for entry in entries if entry.is_file())


def find(root: Path | str, pattern: str) -> list[Path]:
    """Returns the files and folders below `root` that match a glob, sorted; `**` matches zero or more folders."""
    return [Path(path) for path in sorted(set(_matching([str(root)], pattern.split("/"))))]


def is_litter(name: str) -> bool:
    """Whether a name is that of a metadata file that macOS leaves beside real files."""
    return name.startswith("._") or name == ".DS_Store"


def _matching(folders: Iterable[str], parts: list[str]) -> Iterator[str]:
    part, rest = parts[0], parts[1:]
    if part == ANYWHERE:
        yield from _matching((inner for folder in folders for inner, _ in _walk(folder)), rest)
        return
    if WILD.search(part) is None:
        found: Iterable[str] = (path for folder in folders if os.path.exists(path := f"{folder}{os.sep}{part}"))  # noqa: PTH110
    else:
        fits = _pattern(part)
        found = (entry.path for folder in folders for entry in _entries(folder) if fits(entry.name))
    if not rest:
        yield from found
        return
    yield from _matching((path for path in found if os.path.isdir(path)), rest)  # noqa: PTH112


@lru_cache(maxsize=64)
def _pattern(part: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(part)).match


def _walk(folder: str) -> Iterator[tuple[str, list["os.DirEntry[str]"]]]:
    """Yields every real folder from `folder` down once, with its entries; not recursive, as releases can be deep."""
    seen: set[tuple[int, int]] = set()
    todo = [folder]
    while todo:
        current = todo.pop()
        try:
            status = os.stat(current)  # noqa: PTH116
        except (OSError, ValueError):
            continue
        if (identity := (status.st_dev, status.st_ino)) not in seen:
            seen.add(identity)
            entries = _entries(current)
            yield current, entries
            todo += sorted((entry.path for entry in entries if entry.is_dir()), reverse=True)


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_litter(entry.name)]
    except (OSError, ValueError):
        return []
