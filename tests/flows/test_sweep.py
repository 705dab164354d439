import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.sweep import comparison, override, prepare
from pose_rft.errors import PoseRftError

BASE = {"rft": {"beta": 0.1, "rewards": {"text": 1.0}}, "sft": {"steps": 3}}


def test_an_override_sets_one_key_and_leaves_the_base_alone():
    assert override(BASE, {"rft.rewards.text": 0.0, "sft.steps": 5}) == {
        "rft": {"beta": 0.1, "rewards": {"text": 0.0}},
        "sft": {"steps": 5},
    }
    assert BASE["sft"] == {"steps": 3}


def test_an_override_may_name_a_key_that_stands_in_code_alone():
    content = override(BASE, {"rft.temperature": 0.9, "rft.stop.kl": 0.5, "rft.supervised": {"rotation": 1.0}})
    assert content["rft"] == BASE["rft"] | {"temperature": 0.9, "stop": {"kl": 0.5}, "supervised": {"rotation": 1.0}}


@pytest.mark.parametrize("name", ["rft.stop.kll", "rft.rewards.weight", "rft.bta", "rtf.beta", "rft.beta.x", "beta"])
def test_an_override_of_no_key_is_one_sentence(name):
    with pytest.raises(PoseRftError, match=f"no key `{name}`"):
        override(BASE, {name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rft.rewards", {"text": 0.0}),
        ("rft", {"coco; touch x": {}}),
        ("rft.rewards", 1.0),
        ("rft.beta", {"../../docs": 1}),
    ],
)
def test_an_override_makes_and_replaces_no_section(name, value):  # S7: names of sections are names of stages
    with pytest.raises(PoseRftError, match=f"`{name}` is or would be a section"):
        override(BASE, {name: value})


def test_a_comparison_has_a_column_per_run():
    rows = [{"run": "a", "state": "Completed", "x": 1.23456}, {"run": "b", "state": "Failed", "why": "no"}]
    assert comparison(rows) == [
        {"": "state", "a": "Completed", "b": "Failed"},
        {"": "x", "a": 1.2346, "b": ""},
        {"": "why", "a": "", "b": "no"},
    ]


def test_clones_share_a_run_whatever_bytes_the_committed_lock_names(tmp_path: Path) -> None:
    """The lock in git may be of a machine whose sample has other bytes; each clone would make its own again."""
    root, ran = tmp_path / "root", tmp_path / "ran"
    root.mkdir()
    stage = f"stages:\n  sample:\n    cmd: echo x >> {ran} && echo made > out\n    params: [a]\n"
    (root / "dvc.yaml").write_text(stage + "    deps: [dep]\n    outs: [out]\n")
    (root / "params.yaml").write_text("a: 1\n")
    (root / "dep").write_text("dep")
    (root / ".gitignore").write_text(".scratch\n/out\n")
    own = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

    def call(folder: Path, *command: str) -> None:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ | own)

    dvc = (sys.executable, "-m", "dvc")
    call(root, "git", "init", "-q")
    call(root, *dvc, "init", "-q")
    call(root, *dvc, "repro", "-q")
    lock = (root / "dvc.lock").read_text()
    (root / "dvc.lock").write_text(re.sub(r"(path: out\n\s+hash: md5\n\s+md5: )\w+", r"\g<1>" + "f" * 32, lock))
    call(root, "git", "add", ".")
    call(root, "git", "commit", "-q", "-m", "as another machine made it")
    clone = prepare(root, {"a": 1})
    call(clone, *dvc, "repro", "-q")
    assert (clone / "out").read_text() == "made\n"
    assert len(ran.read_text().split()) == 1
    call(prepare(root, {"a": 2}), *dvc, "repro", "-q")
    assert len(ran.read_text().split()) == 2, "what params change is made"
