"""What the documents say exists and is current: paths, commands, params keys, stages, numbers; README's blocks run.

Numbers of a run stand in tables behind a comment that says where they come from:

    <!-- metrics/summary.json
    rows: KEY …        one for each row of the table that follows
    columns: KEY …     one for each column but the first; a `*` in it is the row's key
    -->
"""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pose_rft import cli
from pose_rft.predict.store import INPUTS, PREDICTIONS
from pose_rft.report.notice import ON_PHOTOGRAPHS
from tests.support.pages import blocks, paste, readme_block
from tests.test_architecture import FLOORS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which tells of what has gone


def committed_summary() -> dict:
    """The numbers that the documents are about, also where a run on this machine has written its own over them."""
    shown = subprocess.run(["git", "show", "HEAD:metrics/summary.json"], cwd=ROOT, capture_output=True)
    return json.loads(shown.stdout if shown.returncode == 0 else (ROOT / "metrics/summary.json").read_bytes())


SUMMARY = committed_summary()
# What commands write; folders below which documents name modules without their package.
MADE = ("data/", "models/", "results/", "report/", "predictions/", ".scratch/", ".prefect/", ".venv/", "metrics/")
FOLDERS = ("", "docs", "pose_rft", "pose_rft/datasets", "tests")
OURS = ("pose_rft", "stages", "flows", "tests", "docs", "presets", "benchmarks", "examples", ".dvc", ".ci")
MODULES = {path.name for path in (ROOT / "pose_rft").iterdir() if path.is_dir()}


def pages(*parts: Path) -> Any:
    return pytest.mark.parametrize("page", parts or CURRENT, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def code_spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks(page) for line in block.splitlines()]
    return [part.strip() for text in [*code_spans(page), *lines] for part in re.split(r"&&|;", text)]


@pages()
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pages()
def test_paths_of_the_project_exist(page: Path) -> None:
    for span in code_spans(page):
        for word in span.split():
            path = word.strip("(),;:'\"").removeprefix("./")
            if not re.fullmatch(r"[\w.@-]+(/[\w.@-]+)*/?", path) or path.startswith(MADE):
                continue
            first, inside = path.split("/")[0], "/" in path
            ends = (".py", ".md", ".yaml", "/", ".png", ".jpg")
            if inside and (path.endswith(".py") or (first in (*OURS, *MODULES) and path.endswith(ends))):
                assert any((ROOT / folder / path).exists() for folder in FOLDERS), f"{page.name} names {path}"


def verb(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `pose-rft WORDS` means, and what is left of the words."""
    found = typer.main.get_command(cli.app)
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words[0]]  # type: ignore[attr-defined]
        words = words[1:]
    return found, words


@pages()
def test_commands_exist(page: Path) -> None:
    for command in commands(page):
        words = command.split()
        if command.startswith("pose-rft ") and re.fullmatch(r"[a-z]+", words[1]):
            found, rest = verb(words[1:])
            assert found is not typer.main.get_command(cli.app), f"{page.name}: {command}"
            options = {option for parameter in found.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("-")} <= options | {"--help"}, f"{page.name}: {command}"
        if module := re.search(r"python -m (benchmarks|flows|stages)(\.\w+)+", command):
            name = module[0].removeprefix("python -m ").replace(".", "/")
            assert (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir(), f"{page.name}: {command}"


@pages()
def test_files_of_predictions_are_those_that_a_run_leaves(page: Path) -> None:
    for name in re.findall(r"\bpredictions/([\w.]+)", page.read_text()):
        assert name in (PREDICTIONS, INPUTS, "predictions.parquet"), f"{page.name} names predictions/{name}"


@pages()
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(page):
        if found := re.fullmatch(r"make ([a-z-]+)( \w+=.*)?", command):
            assert found[1] in targets, f"{page.name}: {command}"


def params_keys() -> set[str]:
    """Every dotted key of any preset, with what stands in code only (the sections' own fields)."""
    keys: set[str] = set()

    def walk(node: Any, prefix: str) -> None:
        for name, value in node.items() if isinstance(node, dict) else ():
            keys.add(prefix + str(name))
            walk(value, f"{prefix}{name}.")

    for preset in (ROOT / "presets").glob("*.yaml"):
        walk(yaml.safe_load(preset.read_text()), "")
    return keys


@pages()
def test_params_keys_exist(page: Path) -> None:
    keys = params_keys()
    sections = {key for key in keys if "." not in key}
    sources = "\n".join(path.read_text() for path in (ROOT / "pose_rft").rglob("*.py"))
    for span in code_spans(page):
        key = re.match(r"([a-z]\w*(?:\.\w+)+)(?=$|[:, ]|\s*=)", span)
        if key and key[1].split(".")[0] in sections and not key[1].endswith((".py", ".md", ".yaml", ".json", ".lock")):
            names = [name for name in key[1].split(".") if name.islower() or name.isdigit()]
            known = key[1] in keys or all(re.search(rf"\b{name}\b", sources) for name in names)
            assert known, f"{page.name} names {key[1]}"


def tables() -> list[tuple[str, list[str], list[str], list[list[str]]]]:
    found = []
    for page in PAGES:
        mark = r"<!-- metrics/summary.json\nrows: (.*)\ncolumns: (.*)\n-->\n((?:\|.*\n)+)"
        for rows, columns, table in re.findall(mark, page.read_text()):
            cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()[2:]]
            found.append((page.name, rows.split(), columns.split(), [row[1:] for row in cells]))
    return found


def in_summary(key: str) -> float | None:
    node: Any = SUMMARY
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def test_readme_has_a_table_of_results() -> None:
    assert "README.md" in {name for name, *_ in tables()}


@pytest.mark.parametrize("table", tables(), ids=lambda table: table[0])
def test_numbers_are_those_of_the_summary(table: tuple[str, list[str], list[str], list[list[str]]]) -> None:
    name, rows, columns, cells = table
    assert len(cells) == len(rows) and {len(row) for row in cells} == {len(columns)}
    for row, line in zip(rows, cells, strict=True):
        for column, cell in zip(columns, line, strict=True):
            value = in_summary(column.replace("*", row))
            if value is None:
                assert cell == "", f"{name}: there is no {column.replace('*', row)}"
            else:
                decimals = len(cell.partition(".")[2])
                assert float(cell) == pytest.approx(value, abs=0.5001 * 10**-decimals), f"{name}: {column}, {row}"


def test_the_notice_says_of_photographs_what_the_documents_say() -> None:
    told = (ROOT / "docs/photographs.md").read_text()
    numbers = r"this revision: (\d+) of (\d+) people found, 1 false .*?median ([\d.]+) % of\s.*?PCK@0.1 0\.(\d+)"
    found = re.search(numbers, told, re.S)
    assert found, "docs/photographs.md no longer has the numbers of this revision's model"
    people, of, median, within = found.groups()
    for claim in (f"{people} of {of} people and one who is none", f"{median} % of the person", f"{within} % within"):
        assert claim in ON_PHOTOGRAPHS


def test_architecture_names_floors_rooms_and_stages() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (`.*?`) \|", page, re.MULTILINE)
    rooms = [(floor, room) for floor, names in rows for room in re.findall(r"`(.*?)`", names)]
    assert rooms == [(floor, room) for floor, names in FLOORS.items() for room in names]
    files = (ROOT / "dvc.yaml", ROOT / "stages/dvc.yaml")
    stages = {name for file in files for name in yaml.safe_load(file.read_text())["stages"]}
    assert stages == {name for name in re.findall(r"`(\w+)(?:@\w+)?`", page) if name in stages}


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [
        page.name
        for page in (ROOT / "docs").glob("*.md")
        if f"docs/{page.name}" not in readme and page.name != "index.md"
    ]


def in_nav(node: Any) -> list[str]:
    """The pages of mkdocs.yml's nav, in its order."""
    if isinstance(node, str):
        return [node]
    return [page for part in (node.values() if isinstance(node, dict) else node) for page in in_nav(part)]


def test_every_page_of_docs_is_in_the_sites_nav_once() -> None:
    docs = ROOT / "docs"
    listed = in_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))


def test_a_warning_of_the_site_ends_its_build() -> None:
    """`--quiet` takes warnings away before `--strict` counts them."""
    (build,) = re.findall(r"mkdocs build.*", (ROOT / "Makefile").read_text())
    assert "--strict" in build and not {"--quiet", "-q"} & set(build.split())


def test_no_docstring_has_what_the_site_takes_for_a_link() -> None:
    """`[a][b]` outside of code is a cross-reference to b."""
    for path in (ROOT / "pose_rft").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = re.sub(r"``.*?``|`[^`]*`", "", ast.get_docstring(node) or "")
                assert not re.search(r"\]\[", text), f"{path.relative_to(ROOT)}: {text[:80]}"


@pytest.mark.parametrize("words", ["dataset notes", "sample world", "first design"])
def test_nothing_refers_to_what_a_reader_does_not_have(words: str) -> None:
    sources = [path for room in ("pose_rft", "stages", "flows") for path in (ROOT / room).rglob("*.py")]
    assert not [path for path in [*sources, *CURRENT] if words in path.read_text()]


def test_sections_of_formats_that_the_code_cites_exist() -> None:
    headings = set(re.findall(r"^## (.*)$", (ROOT / "docs/formats.md").read_text(), re.MULTILINE))
    cited = {
        found
        for path in (ROOT / "pose_rft").rglob("*.py")
        for found in re.findall(r"docs/formats\.md, ([\w .-]+?)[.);:](?:[\s\"]|$)", " ".join(path.read_text().split()))
    }
    assert cited and cited <= headings


def test_every_block_of_the_readme_is_run_by_a_test() -> None:
    known = ("make run", "pose-rft predict", "dvc repro", "examples/")
    for block in blocks(ROOT / "README.md", "bash"):
        assert sum(words in block for words in known) == 1, block


@pytest.mark.pipeline
def test_readme_examples_run_as_pasted(tmp_path: Path) -> None:
    for name in ("examples", "docs", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    said = paste(readme_block("examples/"), tmp_path, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    assert said.count("\n") >= 3
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert names == set(re.findall(r"examples/(\w+\.py)", readme_block("examples/")))
