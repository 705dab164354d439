"""The results folder: `predictions.jsonl`, a line for each person in each picture, and `inputs.jsonl`, the inputs.

Both files are append-only. A killed run leaves at most an incomplete group of lines at their end, which the next run
truncates. So a run can resume at the frame where it ended, and no run changes what another has written. Every input has
a unique name, under which its pictures and exports are stored; the name is recorded before they are written.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, door
from pose_rft.io.appended import append, open_appended
from pose_rft.io.json_files import parse_json

PREDICTIONS, INPUTS = "predictions.jsonl", "inputs.jsonl"
SCHEMA, VERSION = "pose-rft/prediction", 1
HEAD = re.compile(
    rb'\{"schema":"pose-rft/prediction","version":1,"input":"([0-9a-f]{16})",'
    rb'"frame":(\d{1,9}),"index":(\d{1,9}),"persons":(\d{1,9}),"track":(\d{1,9}|null),'
)
LONGEST_LINE = 1 << 26  # bytes
LONGEST_NAME = 100  # bytes of UTF-8: a file name may have 255, including prefix and suffix
NAME = re.compile(r"[^/.\0]{1,120}")


@dataclass(frozen=True)
class Head:
    """The leading fields of a line, which say whose it is; `end`: where the next line begins in the file."""

    input: str
    frame: int
    index: int
    persons: int
    track: int | None
    start: int
    end: int


@dataclass(frozen=True)
class Finished:
    """How many pictures of a finished input were processed, and how many lines it has."""

    frames: int
    persons: int


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the errors of a full or unwritable disk into a one-line message.

    Raises:
        PoseRftError: instead of an OSError, with the file's name and what to do.
    """
    try:
        yield
    except OSError as error:
        raise PoseRftError(
            f"{error.filename or folder} cannot be written ({error.strerror}); name another folder with --out."
        ) from None


@contextmanager
def of_predict(path: Path) -> Iterator[None]:
    """Turns the errors that a foreign line raises into a one-line message.

    Raises:
        PoseRftError: the block found that `predict` did not write a line of this file.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PoseRftError(
            f"{readable(str(path))} holds no prediction of `pose-rft predict` ({error!r:.80})."
        ) from None


class Store:
    """The results folder, open for one run.

    Raises:
        PoseRftError: it cannot be written, or holds files of these names that this version did not write.
        Busy: another run has it open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, str] = {}
        self.finished: dict[str, Finished] = {}
        self.last: dict[str, int] = {}
        """Key of an input, finished or not → its last frame whose lines are complete."""
        self._files: dict[str, BinaryIO] = {}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._files = {name: open_appended(folder / name) for name in (PREDICTIONS, INPUTS)}
            self._read_inputs()
            self._read_predictions()
            self._blocked = {base for entry in folder.iterdir() for base in _bases(entry.name.partition(".")[0])}

    def _read_inputs(self) -> None:
        file, whole = self._files[INPUTS], 0
        file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(whole)
                return
            whole += len(line)
            event = parse_json(line, self.folder / INPUTS, dict)
            try:
                if event["event"] == "begun":
                    self.names[str(event["input"])] = checked_name(event["name"])
                else:
                    self.finished[str(event["input"])] = Finished(int(event["frames"]), int(event["persons"]))
                    if str(event["input"]) not in self.names:
                        raise ValueError("an input ended that never began")
            except (KeyError, TypeError, ValueError, OverflowError):
                raise PoseRftError(
                    f"{self.folder / INPUTS} holds a line that `predict` did not write; name another folder with --out."
                ) from None

    def _read_predictions(self) -> None:
        file = self._files[PREDICTIONS]
        first, count, whole = None, 0, 0  # first, count: lines of one picture; whole: end of complete ones
        for head in heads(self.folder / PREDICTIONS):
            if first is None or (first.input, first.frame) != (head.input, head.frame):
                first, count = head, 0
            count += 1
            if count == head.persons:
                whole, self.last[head.input] = head.end, head.frame
        if file.seek(0, os.SEEK_END) > whole:
            file.truncate(whole)

    def begin(self, key: str, name: str, facts: dict[str, Any]) -> str:
        """Returns the input's unique name; an input begun earlier keeps its name."""
        if key not in self.names:
            self.names[key] = self._free(name)
            line = {"schema": "pose-rft/input", "version": VERSION, "event": "begun", "input": key}
            self._append(INPUTS, [line | {"name": self.names[key]} | facts])
        return self.names[key]

    def _free(self, name: str) -> str:
        """Returns NAME, or NAME-2, … if another input or an unrelated file would share a file name with it."""
        name = name.replace(".", "-").encode()[:LONGEST_NAME].decode("utf-8", "ignore")
        claimed = {other.casefold() for other in self.names.values()}
        for copy in range(1, len(self._blocked) + len(claimed) + 2):
            found = name if copy == 1 else f"{name.replace('_', '-')}-{copy}"  # `a_0-2` might still belong to `a`
            bases = _bases(found)
            if found.casefold() not in self._blocked and not bases & claimed:
                self._blocked |= bases
                return found
        raise AssertionError("each copy meets at least one taken name")

    def add(self, lines: Sequence[dict[str, Any]]) -> None:
        """Appends all lines of one or more pictures; they are on disk when this returns."""
        self._append(PREDICTIONS, lines)

    def finish(self, key: str, frames: int, persons: int) -> None:
        facts = {"schema": "pose-rft/input", "version": VERSION, "event": "finished", "input": key}
        self._append(INPUTS, [facts | {"frames": frames, "persons": persons}])
        self.finished[key] = Finished(frames, persons)

    def _append(self, name: str, lines: Sequence[dict[str, Any]]) -> None:
        with writing(self.folder / name):
            append(self._files[name], b"".join(line_bytes(line) for line in lines))

    def without(self, keys: Collection[str]) -> "Store":
        """Removes the lines of these inputs, so that they are predicted again, and returns the store; names stay."""
        unwanted = {key for key in keys if key in self.finished or key in self.last}
        if not unwanted:
            return self
        with writing(self.folder):
            kept = [
                event
                for event in read_events(self.folder)
                if event["event"] == "begun" or event["input"] not in unwanted
            ]
            atomic.write_bytes(self.folder / INPUTS, b"".join(line_bytes(event) for event in kept))
            beside = atomic.unfinished(self.folder / PREDICTIONS)
            with atomic.create(beside) as target, door.open_file(self.folder / PREDICTIONS) as source:
                for head in heads(self.folder / PREDICTIONS):
                    if head.input not in unwanted:
                        source.seek(head.start)
                        target.write(source.read(head.end - head.start))
            os.replace(beside, self.folder / PREDICTIONS)
        self.close()
        return Store(self.folder)

    def close(self) -> None:
        """Closes all files, even if one of them cannot be flushed."""
        with ExitStack() as left:
            for name, file in self._files.items():
                left.callback(self._close, name, file)

    def _close(self, name: str, file: BinaryIO) -> None:
        with writing(self.folder / name):  # closing retries writes that failed before
            file.close()


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Reads the events in a folder's `inputs.jsonl`, in order, without opening a store."""
    path = folder / INPUTS
    return [parse_json(line, path, dict) for line in door.read_file(path).splitlines()]


def heads(path: Path) -> Iterator[Head]:
    """Yields the heads of a file's complete lines, in order; skips a truncated last line.

    Raises:
        PoseRftError: no such file, or a line that this version did not write.
    """
    end = 0
    with door.open_file(path) as file:
        while line := file.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:  # otherwise its first part would pass for a truncated last line
                raise PoseRftError(f"{readable(str(path))} has a line of over {LONGEST_LINE >> 20} MiB; none of ours.")
            if not line.endswith(b"\n"):
                return
            found, start, end = HEAD.match(line), end, end + len(line)
            if found is None:
                raise PoseRftError(
                    f"{path} holds a line that is no {SCHEMA} of version {VERSION}; name another folder with --out."
                )
            frame, index, persons = (int(found[i]) for i in (2, 3, 4))
            track = None if found[5] == b"null" else int(found[5])
            yield Head(found[1].decode(), frame, index, persons, track, start, end)


def read_lines(path: Path, chosen: Iterable[Head]) -> Iterator[dict[str, Any]]:
    """Yields the content of the chosen lines, one by one."""
    with door.open_file(path) as file:
        for head in chosen:
            file.seek(head.start)
            yield parse_json(file.read(head.end - head.start), path, dict)


def line_bytes(content: dict[str, Any]) -> bytes:
    """Serialises a line in key order, so that `HEAD` matches its beginning; escapes what UTF-8 cannot encode.

    Raises:
        PoseRftError: a number is NaN or infinite, as with damaged weights.
    """
    try:
        text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except ValueError:
        raise PoseRftError(
            f"What the model {content.get('model')} says holds a number that is none: it is damaged; copy it again."
        ) from None
    return text.encode("utf-8", "backslashreplace") + b"\n"


def readable(text: str) -> str:
    """Returns text in writable form: bytes of a file name that are not valid UTF-8 become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def checked_name(name: object) -> str:
    """Returns an input's name if it is valid.

    Raises:
        ValueError: `Store` never gives such a name; it might point outside the folder.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{name!r:.60} is no name of an input")
    return name


def _bases(name: str) -> set[str]:
    """Returns the names of inputs that might have written a file of this name: `a_0` may be `a`, person 0."""
    parts = name.casefold().split("_")
    return {"_".join(parts[:count]) for count in range(1, len(parts) + 1)}
