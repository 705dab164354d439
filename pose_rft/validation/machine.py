"""Checks the set-up of this machine and account, and that other accounts have no access: `pose-rft doctor machine`."""

import configparser
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io.private import own_folder, problem_with

SITE_CACHE = "DVC_SITE_CACHE_DIR"
SHARED_BY_ALL = Path("/var/tmp/dvc")  # DVC's default


@dataclass(frozen=True)
class Finding:
    """The result of one check; `problem` says what to do, None if all is well."""

    what: str
    state: str
    problem: str | None = None


def examine(root: Path) -> list[Finding]:
    """Runs all checks; changes nothing except that it may create the private folder of DVC's site cache."""
    return [_git(root), _account(), _home(), _dvc(root), _secrets(root), *_shared()]


def table(findings: list[Finding]) -> str:
    """Formats the findings as text: what was checked, its state, and how to fix a problem."""
    lines = []
    for finding in findings:
        lines.append(f"{'ok' if finding.problem is None else 'PROBLEM':<8} {finding.what:<18} {finding.state}")
        if finding.problem is not None:
            lines.append(f"{'':<27} {finding.problem}")
    return "\n".join(lines)


def _git(root: Path) -> Finding:
    if shutil.which("git") is None:
        return Finding("git", "is not installed", "install git; DVC and `make diff` work in git repositories only")
    done = subprocess.run(["git", "rev-parse", "--git-dir"], cwd=root, capture_output=True, text=True)
    if done.returncode == 0:
        return Finding("git", "this folder is a repository")
    if "dubious ownership" in done.stderr:
        trust = f"git config --global --add safe.directory {root.resolve()}"
        return Finding("git", "this repository is another account's", f"if you trust its owner: `{trust}`")
    return Finding("git", "this folder is no repository", "`git clone` the project; a ZIP has no history")


def _account() -> Finding:
    names = ("LOGNAME", "USER", "LNAME", "USERNAME")
    try:
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = next((os.environ[variable] for variable in names if os.environ.get(variable)), "")
    if name:
        return Finding("account", name)
    return Finding("account", f"number {os.getuid()} has no name", "`export USER=me`; DVC asks for it")


def _home() -> Finding:
    home = os.environ.get("HOME")
    if home and os.access(home, os.W_OK):
        return Finding("HOME", home)
    return Finding(
        "HOME", f"{home or 'is not set'}{' cannot be written' if home else ''}", "`export HOME=` a folder of your own"
    )


def _dvc(root: Path) -> Finding:
    """Checks the folder of DVC's site cache, because DVC unpickles some of its files."""
    folder = Path(os.environ.get(SITE_CACHE) or _configured(root) or SHARED_BY_ALL)
    remedy = "`make install`, or `python -m flows.private_dvc`, gives DVC a folder of your own"
    try:
        own = own_folder("dvc", lasting=True)
    except PoseRftError as error:
        return Finding("DVC's notes", str(error), remedy)
    problem = problem_with(folder)
    if folder == SHARED_BY_ALL:
        problem = "everybody on this machine can write into it"
    if problem:
        remedy += f", such as {own}; until then others can run code as you when you type `dvc`"
        return Finding("DVC's notes", f"{folder}: {problem}", remedy)
    return Finding("DVC's notes", str(folder))


def _configured(root: Path) -> str | None:
    found = None
    for name in ("config", "config.local"):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(root / ".dvc" / name)
        except (configparser.Error, UnicodeDecodeError):
            continue
        found = parser.get("core", "site_cache_dir", fallback=found)
    return found


def _secrets(root: Path) -> Finding:
    folder = root / ".prefect"
    if not folder.exists():
        return Finding("secrets", "`pose-rft up` has not run here")
    if problem := problem_with(folder):
        return Finding("secrets", f"{folder}: {problem}", "`pose-rft down`, and remove the folder")
    return Finding("secrets", str(folder))


def _shared() -> Iterator[Finding]:
    """Checks the folders that several accounts may share (docs/operations.md), and the temporary folder."""
    for variable in ("POSE_RFT_CACHE", "POSE_RFT_SCRATCH"):
        if not (named := os.environ.get(variable)):
            continue
        folder = Path(named)
        if not folder.is_dir():
            yield Finding(variable, f"{folder} does not exist", f"`mkdir -p {folder}`")
        elif not os.access(folder, os.W_OK):
            remedy = f"its owner: `chgrp -R GROUP {folder} && chmod -R g+rwX {folder} && chmod g+s {folder}`"
            yield Finding(variable, f"{folder} cannot be written", remedy)
        else:
            yield Finding(variable, str(folder))
    if not os.access(tempfile.gettempdir(), os.W_OK):
        remedy = "`export TMPDIR=` a folder of your own"
        yield Finding("temporary", f"{tempfile.gettempdir()} cannot be written", remedy)
