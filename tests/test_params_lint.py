"""params.yaml, the types that read it, the stages that depend on it and the presets say the same."""

import ast
import re
import types
import typing
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from pose_rft.params_file import read_yaml
from tests.test_architecture import ROOT, closure, imports, module_file, stages
from tests.test_presets import PRESETS, SECTIONS

# Keys that are names of things (data sets, tasks), not of choices: presets may differ in them.
FREE = ("datasets", "image_sets", "validation_sets", "mixture", "heldout", "counts", "expected")
# Choices that exclude each other (a tiny model or a checkpoint), and DeepSpeed's, which a CPU has no use for.
ALTERNATIVES = re.compile(
    r"base_model\.(tiny|contrastive|checkpoint)|pose_encoder\.(blazepose|lifter|conv_vit|training|checkpoint)"
    r"|(sft|rft)\.(lora|engine\.)|retrieval\.reward\.sentence\."
)


def sections(kind: type[BaseModel], prefix: str) -> typing.Iterator[tuple[str, type[BaseModel]]]:
    """A section's type and those inside it, with their dotted names."""
    yield prefix, kind
    for name, field in kind.model_fields.items():
        for inner in models(field.annotation):
            yield from sections(inner, f"{prefix}.{name}")


def models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple, list):
        return [model for inner in typing.get_args(annotation) for model in models(inner)]
    return []


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


def shape(content: object, prefix: str = "") -> set[str]:
    if not isinstance(content, dict) or prefix.rpartition(".")[2] in FREE:
        return {prefix}
    return {prefix} | {
        name for key, value in content.items() for name in shape(value, f"{prefix}.{key}" if prefix else str(key))
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_one_shape(preset):
    sample, other = (
        {key for key in shape(read_yaml(ROOT / f"presets/{name}.yaml")) if not ALTERNATIVES.match(key)}
        for name in ("sample", preset)
    )
    assert other == sample, f"only in {preset}: {sorted(other - sample)}; only in sample: {sorted(sample - other)}"


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
