"""Every public function, class and method of the library says in one line what it is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = ("Args:", "Returns:", "Raises:", "Source:", "Convention:")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition, ast.ClassDef | None]]:
    """(qualified name, node, the class around it) of all that is public, nested functions aside."""

    def below(body: list[ast.stmt], prefix: str, owner: ast.ClassDef | None) -> Iterator:
        for node in body:
            if isinstance(node, Definition) and not node.name.startswith("_"):
                yield prefix + node.name, node, owner
                if isinstance(node, ast.ClassDef):
                    yield from below(node.body, f"{prefix}{node.name}.", node)

    return below(body, prefix, None)


def modules() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted((ROOT / "pose_rft").rglob("*.py"))}


def is_protocol(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)


def in_protocols(trees: dict[Path, ast.Module]) -> set[str]:
    """Names of functions that a Protocol documents: who implements one need not say it again. `forward` is torch's."""
    found = {"forward"}
    for tree in trees.values():
        for _, node, owner in definitions(tree.body):
            if owner is not None and is_protocol(owner) and ast.get_docstring(node):
                found.add(node.name)
    return found


def test_everything_public_has_a_summary_line() -> None:
    trees = modules()
    known = in_protocols(trees)
    missing = []
    for path, tree in trees.items():
        for name, node, _ in definitions(tree.body):
            text = ast.get_docstring(node)
            if text is None and (isinstance(node, ast.ClassDef) or node.name not in known):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
            elif text is not None and (text.startswith(SECTIONS) or not text.split("\n")[0].strip()):
                missing.append(f"{path.relative_to(ROOT)}: {name} begins with a section")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_its_purpose(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree)
