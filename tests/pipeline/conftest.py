"""A whole project of its own on the micro preset: code copied, git and DVC initialised, the pipeline run once."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CODE = ("pose_rft", "stages", "flows", "presets", "dvc.yaml", ".dvcignore", ".gitignore")
HOUR = 3600  # of a machine with other work; alone it is minutes


@dataclass(frozen=True)
class Project:
    root: Path

    def run(self, *command: str, check: bool = True, timeout: int = HOUR, **env: str) -> subprocess.CompletedProcess:
        """Runs a command inside the project; its output is in the failure message."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=self.root,
            env=os.environ | {"PATH": path, "PYTHONPATH": str(self.root)} | env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def repro(self, *arguments: str, **options) -> list[str]:
        """`dvc repro`; returns the stages that ran."""
        output = self.run("dvc", "repro", *arguments, **options).stdout
        ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
        return [name.rpartition(":")[2] for name in ran]  # stages/dvc.yaml:inventory

    def params(self) -> dict:
        return yaml.safe_load((self.root / "params.yaml").read_text())

    def set_params(self, **dotted: object) -> None:
        """Sets values: `set_params(**{"rft.epsilon": 0.1})`."""
        content = self.params()
        for name, value in dotted.items():
            *sections, key = name.split(".")
            node = content
            for section in sections:
                node = node[section]
            node[key] = value
        (self.root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def copy(self, to: Path) -> "Project":
        """The project with everything that it has made so far."""
        shutil.copytree(self.root, to, symlinks=True)
        return Project(to)


def new_project(root: Path, preset: str = "micro") -> Project:
    root.mkdir(parents=True)
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    shutil.copy(ROOT / f"presets/{preset}.yaml", root / "params.yaml")
    project = Project(root)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("dvc", "config", "core.analytics", "false")
    project.run("dvc", "config", "core.autostage", "false")
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start")
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The micro pipeline, run to its end."""
    project = new_project(tmp_path_factory.mktemp("micro") / "project")
    project.repro()
    return project
