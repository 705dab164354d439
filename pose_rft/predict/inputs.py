"""Turns the arguments of `pose-rft predict` into a list of inputs: photographs, videos and sentences.

An argument is a file, a folder (all photographs and videos below it), a glob pattern, or `-` for a list of such
arguments on stdin, one per line. An existing file is never read as a pattern, whatever characters its name holds.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, door, pictures, video
from pose_rft.io.find import WILD, files_below, find
from pose_rft.predict.photographs import file_bytes
from pose_rft.predict.store import readable

Kind = Literal["photograph", "video", "text"]
PHOTOGRAPHS = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mov", ".m4v", ".avi")
OTHER_VIDEOS = (".mkv", ".webm", ".mpg", ".mpeg", ".wmv")  # refused as videos, not as pictures, if named
STDIN = "-"


@dataclass(frozen=True)
class Input:
    """kind; source: path or sentence, in writable form; path: None for a sentence; pictures: how many there are to
    process; rate: frames per second of a video; turns: quarter turns that bring its frames upright."""

    kind: Kind
    source: str
    path: Path | None = None
    pictures: int = 1
    rate: float | None = None
    turns: int = 0

    def key(self, settings: dict[str, Any]) -> str:
        """16 hex digits: a hash of the content, the path and all settings that affect the result.

        Raises:
            PoseRftError: the file can no longer be read.
        """
        content = self.source if self.path is None else digest(self.path)
        name = None if self.path is None else readable(str(self.path.absolute()))
        whole = atomic.json_bytes([self.kind, name, content, settings])
        return hashlib.sha256(whole).hexdigest()[:16]


def expand(arguments: Iterable[str], lines: Iterable[str], out: Path) -> Iterator[Path]:
    """Yields the files that the arguments name, each once; skips files below `out` in folders: they are results.

    Raises:
        PoseRftError: a folder or pattern contains no photograph or video.
    """
    seen: set[str] = set()
    for argument in arguments:
        if argument == STDIN:
            found: Iterable[Path] = expand([name for line in lines if (name := line.rstrip("\r\n"))], (), out)
        else:
            found = _files(argument, out)
        for path in found:
            if (name := str(path.absolute())) not in seen:
                seen.add(name)
                yield path


def _files(argument: str, out: Path) -> Sequence[Path]:
    path = Path(argument)
    if path.is_dir():
        results = out.resolve()
        below = (Path(name) for name in sorted(files_below(argument)))
        files = [file for file in below if _is_input(file) and results not in file.resolve().parents]
        where = "folder"
    elif WILD.search(argument) and not path.exists():
        plain = len(list(takewhile(lambda part: not WILD.search(part), path.parts)))
        root, pattern = Path(*path.parts[:plain]), "/".join(path.parts[plain:])
        files = [file for file in find(root, pattern) if _is_input(file)]
        where = "pattern"
    else:
        return [path]
    if not files:
        kinds = ", ".join((*PHOTOGRAPHS, *VIDEOS))
        raise PoseRftError(f"The {where} {readable(argument)} holds no photograph and no video ({kinds}).")
    return files


def _is_input(path: Path) -> bool:
    return path.suffix.lower() in (*PHOTOGRAPHS, *VIDEOS) and path.is_file()


def look_at(path: Path, every: int) -> Input:
    """Returns a file as an input, after reading its header.

    Raises:
        PoseRftError: there is no such file, or it is neither a photograph nor a video; the message names it.
    """
    if path.suffix.lower() in (*VIDEOS, *OTHER_VIDEOS):
        facts = video.facts(path)
        return Input("video", readable(str(path)), path, -(-(facts.count or 1) // every), facts.rate, facts.turns)
    data = file_bytes(path)
    try:
        pictures.header(data)
    except PoseRftError as error:
        raise PoseRftError(f"{readable(str(path))}: {error}") from None
    return Input("photograph", readable(str(path)), path)


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file of any length."""
    with door.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def fingerprint(folder: Path) -> str:
    """Hashes the names, sizes and modification times of the files in a model's folder."""
    facts = [
        (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
