"""YAML files: looked at event by event before anything is built.

libyaml's parser keeps its own stack, but what builds the content from it recurses in C: 100,000 brackets end the
interpreter. An alias costs three bytes and stands for all that it names, so what a file stands for is counted too.
"""

from pathlib import Path
from typing import Any

import yaml

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

LARGEST, DEEPEST, MOST_NODES, LARGEST_INTEGER = 1 << 20, 50, 100_000, 1 << 63
# Ten times as fast where PyYAML was built with libyaml.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
START, END = (yaml.MappingStartEvent, yaml.SequenceStartEvent), (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def read_yaml(path: Path) -> Any:
    """The content of a file.

    Raises:
        door.Missing: no such file. PoseRftError: no regular file, not UTF-8, not YAML, or absurdly large or deep.
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


def _check(text: str) -> None:
    """
    Raises:
        ValueError: nested absurdly, or of absurdly many nodes once its aliases are followed.
    """
    size: dict[str, int] = {}  # nodes behind an anchor; not there while it is open, so it cannot contain itself
    open_nodes: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, END):
            anchor, before = open_nodes.pop()
            if anchor:
                size[anchor] = count - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in size:
                raise ValueError(f"the alias *{event.anchor} names nothing above it")
            count += size[event.anchor]
        elif isinstance(event, (yaml.ScalarEvent, *START)):
            count += 1
            if isinstance(event, START):
                open_nodes.append((event.anchor, count))
            elif event.anchor:
                size[event.anchor] = 1
        if len(open_nodes) > DEEPEST or count > MOST_NODES:
            raise ValueError(f"more than {DEEPEST} levels or {MOST_NODES} values")


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
