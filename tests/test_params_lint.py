"""params.yaml, the types that read it, the stages that depend on it and the presets say the same."""

import ast
import re
import typing
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from pose_rft.params_file import read_yaml
from stages.sections import SECTIONS, is_key, sections_in
from tests.test_architecture import ROOT, closure, imports, module_file, stages
from tests.test_presets import PRESETS

# Equal in all presets and named all the same, as a reader looks for them: the paper's open questions.
NAMED = {"policy.fusion", "policy.covariance", "rft.epsilon"}


def sections(kind: type[BaseModel], prefix: str) -> typing.Iterator[tuple[str, type[BaseModel]]]:
    """A section's type and those inside it, with their dotted names."""
    yield prefix, kind
    for name, field in kind.model_fields.items():
        for inner in sections_in(field.annotation):
            yield from sections(inner, f"{prefix}.{name}")


@cache
def words() -> frozenset[str]:
    """Every attribute that the project reads from something."""
    found = set()
    for package in ("pose_rft", "stages", "flows"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    found.add(node.attr)
    return frozenset(found)


WITHOUT_EFFECT = {"launch"}  # the number of processes changes no result beyond rounding
FIELDS = [
    f"{prefix}.{name}"
    for top, kind in SECTIONS.items()
    for prefix, inner in sections(kind, top)
    for name in inner.model_fields
]


@pytest.mark.parametrize("dotted", sorted(set(FIELDS)))
def test_every_key_is_read_somewhere(dotted):
    name = dotted.rpartition(".")[2]
    dumped = {"engine"}  # handed on as a whole
    assert name in words() or dumped & set(dotted.split(".")), f"nothing reads `{dotted}`"


@pytest.mark.parametrize("name", sorted(set(FIELDS)))
def test_every_field_is_a_key(name):
    assert is_key(name) and not is_key(f"{name}x") and not is_key(name.partition(".")[0])


def named(content: object, kinds: list[type[BaseModel]], prefix: str) -> typing.Iterator[tuple[str, bool]]:
    """Every key of a preset that has a default in code, and whether the preset gives it another value."""
    for name, value in content.items() if isinstance(content, dict) else ():
        for field in (kind.model_fields[name] for kind in kinds if name in kind.model_fields):
            if isinstance(value, dict) and (inner := sections_in(field.annotation)):
                yield from named(value, inner, f"{prefix}.{name}")
            elif not field.is_required():
                default = field.get_default(call_default_factory=True)
                yield f"{prefix}.{name}", value != (list(default) if isinstance(default, tuple) else default)


def test_what_is_the_same_in_every_preset_stands_in_code():
    changed: dict[str, bool] = {}
    for preset in PRESETS:
        content = read_yaml(ROOT / f"presets/{preset}.yaml")
        for top, kind in SECTIONS.items():
            for name, other in named(content[top], [kind], top):
                changed[name] = changed.get(name, False) or other
    assert {name for name, other in changed.items() if not other} == NAMED, "leave these keys to their defaults"


def loaded_sections(file: Path) -> set[str]:
    """Sections that running `file` may read: the first argument of `load(…)`."""
    return {name for source in closure(file) for name in calls(ast.parse(source.read_text()))}


def calls(tree: ast.AST) -> set[str]:
    """Sections that this module itself loads."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = getattr(node.func, "id", getattr(node.func, "attr", ""))  # load(…) or params.load(…)
        if function == "load" and node.args and isinstance(node.args[0], ast.Constant):
            found.add(str(node.args[0].value))
        elif function == "body_model_folder":
            found.add("data")
    return found


@pytest.mark.parametrize("name", list(stages()))
def test_a_stage_declares_the_params_that_its_module_reads(name):
    stage = stages()[name]
    stage = stage.get("do", stage)
    file = module_file(re.search(r"python -m ([\w.]+)", stage["cmd"])[1])
    recipe = {source for source in closure(file) if source.parent == ROOT / "stages"}  # its module and its parts
    read = {name for source in recipe for name in calls(ast.parse(source.read_text()))} - WITHOUT_EFFECT
    declared = set(stage.get("params", []))
    missing = {section for section in read if not any(key.split(".")[0] == section for key in declared)}
    assert not missing, f"add to params of {name} in dvc.yaml: {sorted(missing)}"
    unused = {key for key in declared if key.split(".")[0] not in loaded_sections(file) | {"datasets"}}
    assert not unused, f"{name} declares {sorted(unused)}, which its module does not read"


def test_no_stage_imports_prefect():
    for file in (ROOT / "stages").glob("*.py"):
        for source in closure(file):
            assert "prefect" not in source.read_text().split(), f"{source} names Prefect"
        assert not any(name.startswith("flows") for name in imports(file))
