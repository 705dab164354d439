"""A12: which code decides the bytes of a shard is found from the imports, not listed by hand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pose_rft.code import FOLDER, closure, code_digest, read_source
from pose_rft.datasets.names import LABELS, RELEASES, TESTS
from pose_rft.datasets.registry import reader_class
from pose_rft.errors import PoseRftError

LOADED = """
import sys
from pose_rft.shards.convert import convert
from pose_rft.datasets.registry import reader_class
reader_class({name!r})
print(*(name for name in sys.modules if name.split(".")[0] == "pose_rft"))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, to be edited."""
    return Path(shutil.copytree(FOLDER, tmp_path / "pose_rft", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize("name", [*RELEASES, *LABELS, *TESTS])
def test_no_module_that_a_conversion_loads_is_left_out(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED.format(name=name)], capture_output=True, text=True, check=True)
    found = closure(("pose_rft.shards.convert", reader_class(name).__module__))
    assert set(done.stdout.split()) <= set(found)
    assert not any(name.startswith(("pose_rft.training", "pose_rft.policy", "pose_rft.sample")) for name in found)


EDITS = {
    "record.py": True,
    "io/packed_arrays.py": True,
    "io/atomic.py": True,
    "shards/convert.py": True,
    "shards/index.py": True,
    "datasets/h36m/reader.py": True,  # loaded by name
    "datasets/fits/named_fits.py": True,
    "body/__init__.py": True,
    "datasets/coco/reader.py": False,
    "training/loop.py": False,
}


@pytest.mark.parametrize(("file", "counts"), EDITS.items())
def test_an_edit_changes_the_digest_if_the_conversion_runs_the_file(copy: Path, file: str, counts: bool) -> None:
    modules = ("pose_rft.shards.convert", "pose_rft.datasets.h36m.reader")
    before = code_digest(modules, copy)
    with (copy / file).open("a") as source:
        source.write("\nEDITED = True\n")
    code_digest.cache_clear()
    assert (code_digest(modules, copy) != before) == counts


WORDS = ('"""Words."""\n', '"""Other\nwords."""\n\n# And a remark.\n')


@pytest.mark.parametrize(
    "code", ["A = 1\n", "def f() -> int:\n    {}\n    return 1\n", "class A:\n    {}\n    b = 1\n"]
)
def test_words_do_not_count_and_everything_else_does(tmp_path: Path, code: str) -> None:
    def digest(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return read_source(tmp_path / name).digest

    texts = [words + code.format(words.replace("\n", "\n    ").rstrip()) for words in WORDS]
    first, second = (digest(f"{number}.py", text) for number, text in enumerate(texts))
    assert first == second
    assert digest("2.py", texts[0].replace("1", "2")) != first


def test_a_hash_sign_inside_a_text_is_no_comment(tmp_path: Path) -> None:
    for number, name in enumerate(("a.py", "b.py")):
        (tmp_path / name).write_text(f'TEXT = """\n# {number}\n\n"""\n')
    assert read_source(tmp_path / "a.py").digest != read_source(tmp_path / "b.py").digest


def test_a_module_that_has_gone_is_an_error_and_no_empty_digest(copy: Path) -> None:
    (copy / "record.py").unlink()
    with pytest.raises(PoseRftError, match=r"pose_rft\.record, .* has no source"):
        closure(("pose_rft.shards.convert",), copy)


RESUME = """
from pathlib import Path
from tests.support.fake_release import FakeRelease
from pose_rft.shards.convert import convert
from pose_rft.errors import PoseRftError
from pose_rft.shards.plan import ShardParams
shards = ShardParams(samples_per_shard=20, executor="serial", workers=1, jpeg_quality=92)
try:
    summary = convert(FakeRelease(bad={bad!r}), "train", Path("out"), shards, 0.0, "digest", Path("scratch"))
    print(summary.reused)
except PoseRftError:
    print("stopped")
"""


def test_an_edit_of_the_shard_format_between_kill_and_resume_mixes_no_shards(copy: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])

    def run(bad: dict[str, str]) -> str:
        command = [sys.executable, "-c", RESUME.format(bad=bad)]
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert run({"u05": "error"}) == "stopped"
    assert len(list((tmp_path / "scratch/shards").glob("*.tar"))) == 2
    record = copy / "record.py"
    record.write_text(record.read_text().replace("SCHEMA_VERSION = 1", "SCHEMA_VERSION = int('1')"))
    assert run({}) == "0"
