"""The layering of docs/architecture.md, and DVC's knowledge of which code a stage runs."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from stages import code

ROOT = Path(__file__).resolve().parent.parent
# From the ground up, six floors of rooms in order: a module may import its own room and those before it.
FLOORS = {
    "ground": ["errors", "code", "io", "params_file", "params", "seeds", "progress", "cores", "record"],
    "body": ["body", "captions", "metrics", "render"],
    "data": ["datasets", "validation.checks", "shards", "validation", "sample"],
    "models": ["policy", "retrieval"],
    "learning": ["batches", "inference", "training", "hygrpo"],
    "outputs": [
        "evaluation",
        "report",
        "cost",
        "export",
        "predict",
        "demo",
        "push",
        "quickstart",
        "wheel_model",
        "cli",
    ],
}
ROOMS = [room for rooms in FLOORS.values() for room in rooms]


def module_file(name: str) -> Path | None:
    path = ROOT / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@cache
def imports(file: Path) -> frozenset[str]:
    """Names of the project's own modules that `file` imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(n for n in names if n.split(".")[0] in ("pose_rft", "stages", "flows") and module_file(n))


def floor(file: Path) -> int:
    parts = file.relative_to(ROOT / "pose_rft").with_suffix("").parts
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(ROOMS.index(name) for name in names if name in ROOMS)


def library_files() -> list[Path]:
    return [f for f in sorted((ROOT / "pose_rft").rglob("*.py")) if f != ROOT / "pose_rft/__init__.py"]


@pytest.mark.parametrize("file", library_files(), ids=lambda f: str(f.relative_to(ROOT)))
def test_no_import_runs_back_up(file):
    for name in imports(file):
        target = module_file(name)
        if target in (ROOT / "pose_rft/__init__.py", None):
            continue
        assert name.startswith("pose_rft"), f"{file} imports {name}"
        assert floor(target) <= floor(file), f"{file.name} imports {name} from a floor above"


@pytest.mark.parametrize("package, forbidden", [("pose_rft", {"dvc", "prefect"}), ("stages", {"prefect", "flows"})])
def test_orchestrators_stay_out_of(package, forbidden):
    for file in (ROOT / package).rglob("*.py"):
        tops = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            for name in (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not tops & forbidden, f"{file} imports {tops & forbidden}"


def stages() -> dict[str, dict]:
    files = (ROOT / "dvc.yaml", ROOT / "stages/dvc.yaml")
    return {name: stage for file in files for name, stage in yaml.safe_load(file.read_text())["stages"].items()}


@cache
def closure(file: Path) -> set[Path]:
    """Every file of the project that running `file` may execute."""
    seen: set[Path] = set()
    todo = [file]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += [found for name in imports(current) if (found := module_file(name))]
    return seen


@pytest.mark.parametrize("name", [n for n in stages() if n not in ("code", "inventory")])  # those always run
def test_a_stage_depends_on_the_code_that_it_runs(name):
    stage = stages()[name]
    stage = stage.get("do", stage)
    module = re.search(r"python -m ([\w.]+)", stage["cmd"])[1]
    (file,) = (dep for dep in stage["deps"] if dep.startswith("data/code/"))
    for item in stages()[name].get("foreach", [""]) if "${item}" in file else [""]:
        assert module in code.roots()[Path(file.replace("${item}", item)).stem]


# An everyday edit, and the stages that it re-runs (docs/architecture.md has the table).
EDITS = {
    "pose_rft/datasets/coco/reader.py": {"convert_coco", "validate"},
    "pose_rft/datasets/h36m/facts.py": {"validate"},
    "pose_rft/shards/show.py": set(),
    "pose_rft/captions/posecodes.py": {"sample", "convert_bedlam", "validate", "evaluate", "report"},
    "pose_rft/training/lifting.py": {"pose_encoder"},
    "pose_rft/training/retrieval.py": {"retrieval"},
    "pose_rft/training/sft.py": {"sft", "rft"},
    "pose_rft/hygrpo/trainer.py": {"rft"},
    "pose_rft/evaluation/protocols.py": {"evaluate"},
    "pose_rft/report/charts.py": {"report"},
    "pose_rft/cost/hardware.py": set(),
    "pose_rft/cli.py": set(),
}


@pytest.mark.parametrize("file", EDITS)
def test_an_edit_reruns_the_stages_whose_result_it_can_change(file):
    module = file.removesuffix(".py").replace("/", ".")
    assert (ROOT / file).is_file()
    assert {name for name, modules in code.roots().items() if module in code.code_of(modules)} == EDITS[file]


@pytest.mark.parametrize("stage", ["code", "inventory"])
def test_a_stage_that_always_runs_starts_without_heavy_imports(stage):
    """A second `dvc repro` runs only these; torch or transformers in its imports would cost seconds."""
    heavy = {"torch", "transformers", "deepspeed", "smplx", "anny", "cv2", "scipy", "polars", "roma", "av", "cdflib"}
    heavy |= {"pydantic", "numpy"}
    told = f"import sys, stages.{stage}; print(*(name.split('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not heavy & set(loaded.stdout.split())
