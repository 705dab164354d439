import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.lock import BUSY_STATUS
from pose_rft.params import Section
from stages.common import fingerprint, scratch_dir, stage_main, training_dir

ROOT = Path(__file__).parents[2]


class Params(Section):
    lr: float = 1e-3
    steps: int = 10


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    Path("shards/train").mkdir(parents=True)
    Path("shards/train/manifest.json").write_text("{}")
    Path("shards/train/00000.tar").write_text("large")
    Path("model").mkdir()
    Path("model/weights").write_text("1")
    return [Path("shards"), Path("model")]


def test_scratch_stays_while_params_and_inputs_stay(inputs):
    first = scratch_dir("sft", Params(), inputs)
    assert first.is_dir() and first.parent == Path(".scratch/sft")
    assert scratch_dir("sft", Params(), inputs) == first
    assert scratch_dir("sft", {"lr": 1e-3, "steps": 10}, inputs) == first


@pytest.mark.parametrize("change", ["params", "manifest", "model", "new file", "fewer inputs"])
def test_scratch_changes_with_params_and_with_any_input(inputs, change):
    first = scratch_dir("sft", Params(), inputs)
    params = Params(lr=2e-3) if change == "params" else Params()
    if change == "manifest":
        Path("shards/train/manifest.json").write_text('{"samples": 1}')
    elif change == "model":
        Path("model/weights").write_text("2")
    elif change == "new file":
        Path("model/more").write_text("")
    assert scratch_dir("sft", params, inputs[:1] if change == "fewer inputs" else inputs) != first


def test_shards_are_known_by_their_manifest_without_reading_them(inputs):
    before = fingerprint(Path("shards"))
    Path("shards/train/00000.tar").write_text("other")
    assert fingerprint(Path("shards")) == before


def test_scratch_may_lie_elsewhere(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("POSE_RFT_SCRATCH", str(tmp_path / "fast disk"))
    assert scratch_dir("sft", Params(), inputs).parent == tmp_path / "fast disk/sft"


def test_a_missing_input_is_one_sentence(inputs):
    with pytest.raises(PoseRftError, match="nothing does not exist"):
        scratch_dir("sft", Params(), [Path("nothing")])


def test_a_users_mistake_ends_in_one_line_and_status_2(capsys):
    def main(arguments: list[str]) -> None:
        raise PoseRftError("This is wrong; fix it.")

    with pytest.raises(SystemExit) as exit:
        stage_main(main)
    assert exit.value.code == 2 and capsys.readouterr().err == "error: This is wrong; fix it.\n"


@pytest.mark.parametrize("bug", [KeyError("bug"), FileNotFoundError(errno.ENOENT, "no such file", "x")])
def test_a_bug_keeps_its_traceback(bug):
    def main(arguments: list[str]) -> None:
        raise bug

    with pytest.raises(type(bug)):
        stage_main(main)


def test_a_full_disk_while_metrics_are_written_is_one_sentence_that_names_the_file(tmp_path, monkeypatch, capsys):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "results" / "metrics.json"
    with pytest.raises(SystemExit) as exit:
        stage_main(lambda arguments: atomic.write_json(path, {"a": 1}))
    told = capsys.readouterr().err
    assert exit.value.code == 2 and told.count("\n") == 1 and not list(path.parent.iterdir())
    assert told.startswith(f"error: {path} cannot be written") and "No space left" in told and "run again" in told


def test_a_stage_is_offline_unless_the_environment_says_otherwise():
    code = "import os; from stages.common import stage_main; stage_main(lambda a: print(os.environ['HF_HUB_OFFLINE']))"
    root = Path(__file__).parents[2]
    for given, seen in ((None, "1"), ("0", "0")):
        environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | (
            {"HF_HUB_OFFLINE": given} if given else {}
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == seen


TRAIN = """
import sys, time
from pathlib import Path
from stages.common import stage_main, training_dir

def main(arguments):
    print(training_dir("sft", {}, [Path("model")]), flush=True)
    time.sleep(float(arguments[0]))

stage_main(main)
"""


def test_one_training_at_a_time_writes_into_its_scratch(inputs):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, "-c", TRAIN, "60"], env=environment, stdout=subprocess.PIPE, text=True)
    folder = first.stdout.readline().strip()
    second = subprocess.run([sys.executable, "-c", TRAIN, "0"], env=environment, capture_output=True, text=True)
    assert second.returncode == BUSY_STATUS and f"error: Another process works in {folder}" in second.stderr
    first.kill()
    first.wait()
    assert training_dir("sft", {}, [Path("model")]) == Path(folder), "a kill ends the lock"
