"""Third-party XML files, without a document type, which could declare entities that expand exponentially."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

LARGEST = 1 << 22  # bytes; Human3.6M's metadata.xml has 110 kB
DEEPEST = 50


class _Builder(ElementTree.TreeBuilder):
    """Rejects excessive depth, for which both parser and tree take quadratic time."""

    depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError("nested absurdly")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)


def read_xml(path: Path) -> ElementTree.Element:
    """Reads a file and returns its root element.

    Raises:
        door.Missing: no such file. PoseRftError: not XML, too large, or it declares a document type.
    """
    data = door.read_file(path, LARGEST)
    if b"<!DOCTYPE" in data:
        raise PoseRftError(f"{path} declares a document type, which no release does; download it again.")
    try:
        with limits.bounded(path, len(data)):
            return ElementTree.fromstring(data, ElementTree.XMLParser(target=_Builder()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise PoseRftError(f"{path} is not XML ({error}); download it again.") from None
