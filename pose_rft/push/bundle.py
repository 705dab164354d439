"""Bundles the code of a policy into a few files that need only torch and transformers, for `trust_remote_code=True`.

Every top-level definition reachable from `PoseLlava` is copied out of its module, and imports between modules become
relative, as transformers requires of remote code: flat files beside config.json. What loading a policy does not need
(converters, training code, cv2) is not reachable and is left out.
"""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "pose_rft"
START = ("pose_rft.policy.model", "PoseLlava")
ALWAYS_THERE = {"torch", "transformers", "numpy", "safetensors"}
BANNER = "# Made by `pose-rft push` from {module} (Apache-2.0); edit that and push again.\n"


def file_name(module: str) -> str:
    """`pose_rft.policy.model` → `policy_model`."""
    return module.removeprefix(f"{PACKAGE}.").replace(".", "_")


def bundle() -> dict[str, str]:
    """Returns {file name: code}."""
    reached = _reached()
    return {f"{file_name(name)}.py": _write(name, kept, reached) for name, kept in sorted(reached.items())}


class _Module:
    """A module of the package: its top-level definitions by name, its imports, and its side effects on import."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree = ast.parse(source(name).read_text())
        self.defined: dict[str, ast.stmt] = {}
        self.imported: dict[str, tuple[str, str | None]] = {}  # name here → (module, name there)
        self.effects: list[ast.stmt] = []
        for node in self.tree.body:
            self._file(node)

    def _file(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self.defined[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        self.defined[part.id] = node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                here = alias.asname or alias.name
                self.imported[here] = (inner, None) if is_module(inner) else (str(node.module), alias.name)
        elif not _is_import(node) and not _is_type_checking(node) and not _is_text(node):
            self.effects.append(node)


def source(module: str) -> Path:
    """Returns the source file of a module of the package."""
    path = ROOT.parent.joinpath(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"


def is_module(name: str) -> bool:
    """Returns whether the name is a module of the package."""
    return source(name).is_file()


def _reached() -> dict[str, set[str]]:
    """Returns {module: names needed from it}."""
    modules: dict[str, _Module] = {}
    reached: dict[str, set[str]] = defaultdict(set)
    todo = [START]
    while todo:
        module, name = todo.pop()
        if name in reached[module]:
            continue
        reached[module].add(name)
        if module not in modules:
            modules[module] = _Module(module)
            for effect in modules[module].effects:
                todo += _needs(modules[module], effect)
        definition = modules[module].defined.get(name)
        if definition is not None:
            todo += _needs(modules[module], definition)
    return dict(reached)


def _needs(module: _Module, node: ast.AST) -> list[tuple[str, str]]:
    needs = []
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            target, inner = module.imported.get(part.value.id, ("", ""))
            if target and inner is None:
                needs.append((target, part.attr))
        elif isinstance(part, ast.Name):
            if part.id in module.defined:
                needs.append((module.name, part.id))
            elif module.imported.get(part.id, ("", None))[1] is not None:
                target, inner = module.imported[part.id]
                needs.append((target, str(inner)))
        elif isinstance(part, ast.ImportFrom) and (part.module or "").startswith(PACKAGE):
            needs += [(str(part.module), alias.name) for alias in part.names]
    return needs


class _Rewrite(ast.NodeTransformer):
    """Makes imports relative, wraps those of packages that may be missing in `try`, and allows registering twice."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        top = (node.module or "").split(".")[0]
        if top == PACKAGE:
            return ast.ImportFrom(file_name(str(node.module)), node.names, 1)
        if top in ALWAYS_THERE or top in _standard():
            return node
        missing = ast.ExceptHandler(ast.Name("ImportError"), None, [ast.Raise()])
        return ast.Try([node], [missing], [], [])  # transformers requires up front every package imported outside `try`

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        callee = ast.unparse(node.func)
        if callee.startswith("Auto") and callee.endswith(".register"):
            node.keywords.append(ast.keyword("exist_ok", ast.Constant(True)))
        return node


def _write(name: str, kept: set[str], reached: dict[str, set[str]]) -> str:
    module = _Module(name)
    wanted = {id(module.defined[one]) for one in kept if one in module.defined} | {id(node) for node in module.effects}
    body = [node for node in module.tree.body if id(node) in wanted]
    used = {part.id for node in body for part in ast.walk(node) if isinstance(part, ast.Name)}
    lines: list[ast.stmt] = []
    for node in module.tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines += _kept_import(node, used, module, reached)
    for node in [*lines, *body]:
        _Rewrite().visit(node)
    text = ast.unparse(ast.fix_missing_locations(ast.Module([*lines, *body], [])))
    return BANNER.format(module=name) + text + "\n"


def _kept_import(
    node: ast.Import | ast.ImportFrom, used: set[str], module: _Module, reached: dict[str, set[str]]
) -> list[ast.stmt]:
    kept = [alias for alias in node.names if (alias.asname or alias.name).split(".")[0] in used]
    if isinstance(node, ast.Import) or (node.module or "").split(".")[0] != PACKAGE:
        if not kept:
            return []
        return [ast.Import(kept) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, kept, node.level)]
    lines: list[ast.stmt] = []
    for alias in kept:
        here = alias.asname or alias.name
        target, inner = module.imported[here]
        if target not in reached:
            continue
        if inner is None:
            # transformers finds the files to fetch only by import lines of the first form.
            lines.append(ast.ImportFrom(file_name(target), [ast.alias("__name__", f"_{here}")], 1))
            lines.append(ast.ImportFrom(None, [ast.alias(file_name(target), here)], 1))
        else:
            lines.append(ast.ImportFrom(file_name(target), [ast.alias(inner, here if here != inner else None)], 1))
    return lines


def _standard() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
