"""The code that decides the bytes of a shard: whatever the conversion and a reader may execute, found by its imports.

A list by hand forgets a module that is renamed; what the interpreter happens to have loaded differs from run to run.
So the imports are read from the sources, also those inside functions, from the converter and from the reader, which is
loaded by name.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import pose_rft
from pose_rft.errors import PoseRftError

PACKAGE = pose_rft.__name__
FOLDER = Path(pose_rft.__file__).parent


@lru_cache(maxsize=8)
def code_digest(modules: tuple[str, ...], folder: Path = FOLDER) -> str:
    """sha256 of the sources that these modules import from this package, directly or not, and of their own.

    Args:
        folder: the package's.
    Raises:
        PoseRftError: a module that is named has no source.
    """
    digest = hashlib.sha256()
    for name, source in sorted(sources(modules, folder).items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def sources(modules: Iterable[str], folder: Path = FOLDER) -> dict[str, bytes]:
    """Module → source of everything of this package that the modules may execute."""
    found: dict[str, bytes] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        path = _file(name, folder)
        if path is None:
            raise PoseRftError(f"The module {name}, which decides what shards hold, has no source; install it again.")
        found[name] = path.read_bytes()
        todo += _imported(found[name], folder)
    return found


def _imported(source: bytes, folder: Path) -> Iterator[str]:
    """The package's modules that a source imports, each with the packages that it lies in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [node.module, *(name for name in inner if _is_own(name) and _file(name, folder))]
        else:
            continue
        for name in filter(_is_own, named):
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _is_own(name: str) -> bool:
    return name.split(".")[0] == PACKAGE


def _file(name: str, folder: Path) -> Path | None:
    """Where the source of a module lies; None if there is none."""
    if _is_own(name):
        path = folder.joinpath(*name.split(".")[1:])
        candidates = (path / "__init__.py", path.with_suffix(".py"))
        return next((path for path in candidates if path.is_file()), None)
    origin = getattr(sys.modules.get(name), "__file__", None)  # a reader of somebody else's
    return Path(origin) if origin is not None else None
