"""The wheel in an environment of its own, away from the repository, with the core dependencies and nothing else: G1.

It is built here, with the model that `.ci/wheel` packs; or POSE_RFT_WHEEL names the one to test (`.ci/trained_wheel`).
"""

import importlib.metadata as metadata
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pose_rft import __version__

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "pose_rft/default_model"  # `.ci/wheel` puts it there
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def core_packages() -> set[str]:
    """Names of all that the core dependencies bring."""
    found: set[str] = set()
    todo = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    while todo:
        wanted = todo.pop()
        extras = {"", *wanted.extras}
        for name in [f"{canonicalize_name(wanted.name)}[{extra}]" for extra in extras]:
            if name in found:
                continue
            found.add(name)
            extra = name.partition("[")[2][:-1]
            for line in metadata.distribution(wanted.name).requires or []:
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    todo.append(requirement)
    return {name.partition("[")[0] for name in found}


def link_packages(names: set[str], site: Path) -> None:
    """These packages, as they are installed here, in another environment."""
    for name in names:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            source, target = Path(str(distribution.locate_file(top))), site / top
            if source.exists() and not target.exists() and top != "__pycache__":
                target.symlink_to(source)


PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def built(folder: Path) -> Path:
    """The wheel of this checkout's files."""
    source = folder / "source"
    source.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in files.split("\0"):
        if name.startswith(("pose_rft/", "stages/", "flows/", "presets/", "pyproject.toml", "README.md", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    if MODEL.is_dir():
        shutil.copytree(MODEL, source / "pose_rft/default_model")
    subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder elsewhere with `env/`, where the wheel is installed."""
    home = tmp_path_factory.mktemp("elsewhere")
    given = os.environ.get("POSE_RFT_WHEEL")
    wheel = (ROOT / given) if given else built(home)
    venv.create(home / "env", symlinks=True)
    link_packages(core_packages(), site_packages(home))
    subprocess.run([*PIP, "--python", home / "env/bin/python", "install", "--no-deps", wheel], check=True)
    return home


def site_packages(home: Path) -> Path:
    return home / f"env/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def run(home: Path, command: str, *arguments: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "POSE_RFT", "VIRTUAL"))}
    kept["POSE_RFT_NETWORKS"] = str(home / "nothing_fetched")
    return subprocess.run(
        [home / "env/bin" / command, *arguments], cwd=home, env=kept, capture_output=True, text=True, timeout=900
    )


LOOK = """
import sys
import numpy as np, torch
import pose_rft.predict, pose_rft.report.build
from pathlib import Path
from pose_rft.body.smpl import load_body_model
from pose_rft.render.bodies import BodyPainter
assert Path(pose_rft.report.build.__file__).with_name("page.html").is_file()
picture = BodyPainter(load_body_model(Path(sys.argv[1]))).portrait(torch.eye(3).expand(24, 3, 3))
assert picture.std() > 1
for name in ("stages", "flows", "anny", "prefect", "pytest"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported")
"""


@pytest.mark.slow
def test_the_commands_work_with_the_core_dependencies_alone(home, tiny_folder):
    np.save(home / "pose.npy", np.zeros(72))
    for arguments, said in (
        (("predict", "--help"), "Photographs"),
        (("plan", "--preset", "paper"), "checkpoints"),
        (("describe", "pose.npy", "--body-model", str(tiny_folder)), "The"),
    ):
        done = run(home, "pose-rft", *arguments)
        assert done.returncode == 0 and said.lower() in done.stdout.lower(), (arguments, done.stdout, done.stderr)
    done = run(home, "python", "-c", LOOK, str(tiny_folder))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.packed
def test_the_wheel_predicts_with_nothing_trained_and_nothing_fetched(home):
    shutil.copy(ROOT / "docs/images/skier.jpg", home / "photo.jpg")
    began = time.monotonic()
    done = run(home, "pose-rft", "quickstart", "photo.jpg")
    assert done.returncode == 0, done.stderr
    (picture,) = [Path(line[len("Look at ") :]) for line in done.stdout.splitlines() if line.startswith("Look at ")]
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.is_relative_to(home / "predictions")
    content = json.loads((home / "predictions/predictions.jsonl").read_text().splitlines()[0])
    assert np.shape(content["rotation_matrices"]) == (24, 3, 3)
    done = run(home, "pose-rft", "predict", "--text", "sitting with crossed legs", "-n", "2")
    assert done.returncode == 0, done.stderr
    print(f"{time.monotonic() - began:.0f} s from the installed wheel to a photograph and a sentence")


@pytest.mark.slow
@pytest.mark.packed
def test_the_model_in_the_wheel_is_whole_and_small(home):
    packed = site_packages(home) / "pose_rft/default_model"
    files = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    weights = "policy/model.safetensors"
    assert {weights, "policy/config.json", "body_models/smpl/SMPL_NEUTRAL.pkl", "pose_detection.tflite"} <= files
    assert (packed / weights).stat().st_size < 15e6
    assert {path.suffix for path in packed.rglob("*.*")} <= {".json", ".safetensors", ".pkl", ".npy", ".tflite", ".txt"}


@pytest.mark.slow
def test_the_version_and_the_shells_completion(home):
    assert run(home, "pose-rft", "--version").stdout == f"pose-rft {__version__}\n"
    bash, program = shutil.which("bash") or "/bin/bash", home / "env/bin/pose-rft"
    shown = run(home, bash, "-c", f"'{program}' --show-completion; true")  # it asks which shell has called it
    assert "_POSE_RFT_COMPLETE" in shown.stdout, shown.stderr


@pytest.mark.slow
def test_what_needs_a_checkout_says_so(home):
    done = run(home, "pose-rft", "up")
    assert (done.returncode, done.stdout) == (2, "") and "needs the project's checkout" in done.stderr


def test_ci_tests_and_keeps_a_wheel_with_the_trained_model_of_main_and_of_tags():
    workflow = yaml.load((ROOT / ".github/workflows/ci.yml").read_text(), yaml.BaseLoader)
    assert "main" in workflow["on"]["push"]["branches"] and workflow["on"]["push"]["tags"]
    job = workflow["jobs"]["wheel"]
    steps = [step.get("run") or step["uses"].partition("@")[0] for step in job["steps"]]
    assert job["if"] == "github.event_name == 'push'"
    assert steps.index(".ci/trained_wheel") < steps.index("actions/upload-artifact")
    (kept,) = [step["with"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert kept["if-no-files-found"] == "error" and kept["path"] == ".scratch/dist/*.whl"
    assert kept["include-hidden-files"] == "true"  # what lies in a folder with a dot is not taken otherwise
    script = (ROOT / ".ci/trained_wheel").read_text().splitlines()
    made, packed, tested = (next(i for i, line in enumerate(script) if words in line) for words in (
        "make run", "make wheel", "pytest tests/test_wheel.py",
    ))  # fmt: skip
    assert made < packed < tested and "--wheel-dir .scratch/dist" in (ROOT / "Makefile").read_text()
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert "run" not in step or os.access(ROOT / step["run"], os.X_OK)


def test_every_file_of_the_library_that_is_no_code_is_in_the_wheel():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    others = [f for f in (ROOT / "pose_rft").rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc", ".yaml")]
    assert ROOT / "pose_rft/demo/page/three.module.min.js" in others
    known = {
        file
        for package, patterns in data.items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert {file for file in others if file.name != ".dvcignore"} <= known
    assert (ROOT / "pose_rft/presets").resolve() == ROOT / "presets"
