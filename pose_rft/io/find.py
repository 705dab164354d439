"""Files of a release, however its folders were put together: links are followed, as those who link data sets expect.

`pathlib`'s `**` walks past linked folders (Python 3.11), and a link into a parent has no end. Here every real folder is
looked into once per question, whatever names lead there. What macOS strews about (`._x.npz`, `.DS_Store`) is no file of
any release. Folders that cannot be opened are passed over: who needs a file of them says so by its name.
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
    """Every file below a folder, in no order; nothing where there is no folder."""
    for _, entries in _walk(str(folder)):
        yield from (entry.path for entry in entries if entry.is_file())


def find(root: Path | str, pattern: str) -> list[Path]:
    """The files and folders below `root` that match a glob pattern, sorted; `**` stands for any folders, also none."""
    return [Path(path) for path in sorted(set(_matching([str(root)], pattern.split("/"))))]


def is_litter(name: str) -> bool:
    """Whether a file is one that macOS leaves beside the true ones."""
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
    """`folder` and all below it with what they hold, each real one once; a release may nest deeper than Python can."""
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
