"""YAML files, checked event by event before anything is built.

libyaml's parser keeps its own stack, but building the content recurses in C: 100,000 brackets crash the interpreter. An
alias costs three bytes but stands for everything it refers to, so the expanded number of nodes is limited too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

LARGEST, DEEPEST, MOST_NODES, LARGEST_INTEGER = 1 << 20, 50, 100_000, 1 << 63
# Ten times faster if PyYAML was built with libyaml.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
START, END = (yaml.MappingStartEvent, yaml.SequenceStartEvent), (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def read_yaml(path: Path) -> Any:
    """Reads a file.

    Raises:
        door.Missing: no such file. PoseRftError: not a regular file, not UTF-8, not YAML, or too large or too deep.
    """
    return parse_yaml(door.read_file(path, LARGEST), path)


def parse_yaml(data: bytes, where: Path | str) -> Any:
    """As `read_yaml`, for bytes that came from `where`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PoseRftError(f"{where} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    try:
        with limits.bounded(where, len(data)):
            _check(text)
            content = yaml.load(text, LOADER)
            _check_integers(content)
            return content
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        cause = " ".join(str(error).split())[:300]
        raise PoseRftError(f"{where} is not valid YAML ({cause}).") from None


@dataclass
class _Open:
    """An open mapping or list; before: node count at its start; keys: scalar keys so far; at_key: a key comes next."""

    anchor: str | None
    before: int
    keys: set[str] | None
    at_key: bool = True


def _check(text: str) -> None:
    """
    Raises:
        ValueError: nested too deeply, too many nodes once aliases are expanded, or a duplicate key, of which YAML's
            parser would keep the last.
    """
    size: dict[str, int] = {}  # nodes under each anchor; added only once it is closed, so it cannot contain itself
    open_nodes: list[_Open] = []
    count = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, END):
            ended = open_nodes.pop()
            if ended.anchor:
                size[ended.anchor] = count - ended.before
            continue
        if isinstance(event, (yaml.AliasEvent, yaml.ScalarEvent, *START)) and open_nodes:
            _check_key(open_nodes[-1], event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in size:
                raise ValueError(f"the alias *{event.anchor} names nothing above it")
            count += size[event.anchor]
        elif isinstance(event, (yaml.ScalarEvent, *START)):
            count += 1
            if isinstance(event, START):
                open_nodes.append(_Open(event.anchor, count, set() if isinstance(event, START[0]) else None))
            elif event.anchor:
                size[event.anchor] = 1
        if len(open_nodes) > DEEPEST or count > MOST_NODES:
            raise ValueError(f"more than {DEEPEST} levels or {MOST_NODES} values")


def _check_key(inside: _Open, event: yaml.Event) -> None:
    if inside.keys is None:
        return
    if inside.at_key and isinstance(event, yaml.ScalarEvent):
        if event.value in inside.keys:
            line = 0 if event.start_mark is None else event.start_mark.line
            raise ValueError(f"`{event.value:.60}` stands twice in line {line + 1} and above")
        inside.keys.add(event.value)
    inside.at_key = not inside.at_key


def _check_integers(content: Any) -> None:
    """
    Raises:
        ValueError: an integer beyond 64 bits.
    """
    if isinstance(content, dict):
        content = [*content, *content.values()]
    if isinstance(content, (list, tuple, set)):
        for value in content:
            _check_integers(value)
    elif isinstance(content, int) and not -LARGEST_INTEGER <= content < LARGEST_INTEGER:
        raise ValueError("an integer that does not fit into 64 bits")
