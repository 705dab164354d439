"""The code that decides a result: the project code that a module may execute, found through its imports.

A hand-written list misses renamed modules, and the set of modules that the interpreter has loaded differs from run to
run. So the imports, including those inside functions, are parsed from the source files. Docstrings and comment-only
lines are ignored: editing them re-runs nothing.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pose_rft
from pose_rft.errors import PoseRftError

PACKAGES = (pose_rft.__name__, "stages")
FOLDER = Path(pose_rft.__file__).parent


@dataclass(frozen=True)
class Source:
    """digest: sha256 of the code in a file; modules: the project modules that it imports; names: what it imports from
    them, which may include modules."""

    digest: str
    modules: tuple[str, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=8)
def code_digest(modules: tuple[str, ...], folder: Path = FOLDER) -> str:
    """Returns the sha256 of all project code that these modules may execute, directly or indirectly.

    Args:
        folder: the package folder.
    Raises:
        PoseRftError: a named module has no source file.
    """
    files = closure(modules, folder)
    return hashlib.sha256("".join(f"{name}\0{found.digest}\n" for name, found in files.items()).encode()).hexdigest()


def closure(modules: Iterable[str], folder: Path = FOLDER) -> dict[str, Source]:
    """Returns {module: source} for all project code that the modules may execute, sorted by name.

    Args:
        folder: the package folder; `stages` lies beside it.
    Raises:
        PoseRftError: a named module has no source file.
    """
    found: dict[str, Source] = {}
    todo = list(_with_parents(modules))
    while todo:
        name = todo.pop()
        if name in found:
            continue
        path = module_file(name, folder)
        if path is None:
            raise PoseRftError(f"The module {name}, which decides a result, has no source; install the project again.")
        found[name] = read_source(path)
        todo += _with_parents(found[name].modules)
        todo += (inner for inner in found[name].names if module_file(inner, folder))
    return dict(sorted(found.items()))


def module_file(name: str, folder: Path = FOLDER) -> Path | None:
    """Returns the path of a module's source file, or None if it has none."""
    if _is_own(name):
        path = folder.parent.joinpath(*name.split("."))
        return next((path for path in (path.with_suffix(".py"), path / "__init__.py") if path.is_file()), None)
    origin = getattr(sys.modules.get(name), "__file__", None)  # a reader of somebody else's
    return Path(origin) if origin is not None else None


def read_source(path: Path) -> Source:
    """Returns the parsed source of a file; parses it again only if the file changed.

    Raises:
        PoseRftError: the file is not valid Python.
    """
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _read(path: Path, mtime: int, size: int) -> Source:
    text = path.read_bytes()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise PoseRftError(f"{path} cannot be read as Python ({error}); undo the edit or finish it.") from None
    digest = hashlib.sha256(_what_runs(text, tree)).hexdigest()
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return Source(digest, _own(_modules(imported)), _own(_names(imported)))


def _what_runs(text: bytes, tree: ast.Module) -> bytes:
    """Returns the source without docstrings, comment-only lines and empty lines."""
    words, inside = set[int](), set[int]()  # lines of docstrings; lines that begin inside a text
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno is not None:
            inside.update(range(node.lineno + 1, node.end_lineno + 1))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            alone = first.lineno > getattr(node, "lineno", 0) and (isinstance(node, ast.Module) or len(node.body) > 1)
            if alone and isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                words.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    kept = (
        line
        for number, line in lines
        if number not in words and (number in inside or (line.strip() and not line.lstrip().startswith(b"#")))
    )
    return b"\n".join(kept)


def _modules(imported: Iterable[ast.Import | ast.ImportFrom]) -> Iterator[str]:
    for node in imported:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif node.module and not node.level:
            yield node.module


def _names(imported: Iterable[ast.Import | ast.ImportFrom]) -> Iterator[str]:
    for node in imported:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(_is_own, names)))


def _with_parents(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        parts = name.split(".") if _is_own(name) else [name]
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _is_own(name: str) -> bool:
    return name.split(".")[0] in PACKAGES
