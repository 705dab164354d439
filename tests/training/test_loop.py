"""Runs that are broken off and continued end where an undisturbed run ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

from pose_rft.errors import PoseRftError
from pose_rft.seeds import torch_generator
from pose_rft.training import checkpoint, loop
from pose_rft.training.engine import Engine, EngineParams
from pose_rft.training.loop import StepStats

torch.set_num_threads(1)
STEPS = 9


class Broken(Exception):
    pass


def train(
    scratch: Path, stage: int = 0, stop_before: int | None = None, kill: bool = False, limit: float = 0.0
) -> tuple[dict, pl.DataFrame]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3))
    engine = Engine(model, EngineParams(lr=1e-2, zero_stage=stage, warmup=0.2), STEPS)

    def step(index: int) -> StepStats:
        if index == stop_before:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Broken
        x = torch.randn(8, 4, generator=torch_generator(3, "batch", index))
        loss = (engine.module(x) - x[:, :3]).square().mean()
        engine.backward(loss)
        norm = engine.step(index)
        return StepStats(float(loss.detach()), len(x), {"norm": norm})

    def stop(row: Mapping[str, float]) -> str | None:
        return f"loss is below {limit}" if row["loss"] < limit else None

    log = loop.run(engine, step, STEPS, scratch, save_every=2, label="toy", seed=3, stop=stop)
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        return {name: value.detach().clone() for name, value in engine.module.state_dict().items()}, log


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_resumed_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path, stage: int) -> None:
    weights, log = train(tmp_path / "whole", stage)
    with pytest.raises(Broken):
        train(tmp_path / "broken", stage, stop_before=5)
    resumed, resumed_log = train(tmp_path / "broken", stage)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    trajectory = ["step", "lr", "loss", "norm"]
    assert log.select(trajectory).equals(resumed_log.select(trajectory))


def test_a_run_that_crosses_a_limit_saves_its_weights_says_why_and_stays_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, log = train(tmp_path / "whole")
    limit = log["loss"][4] + 1e-6
    after = int((log["loss"] < limit).arg_true()[0]) + 1
    weights, stopped = train(tmp_path / "limited", limit=limit)
    assert stopped["loss"].to_list() == log["loss"].to_list()[:after] and after < STEPS
    assert f"stopped after {after} of {STEPS} steps: loss is below" in capsys.readouterr().err
    assert (tmp_path / "limited/checkpoints" / checkpoint.LATEST).read_text() == f"{after:08d}"
    again, again_log = train(tmp_path / "limited", limit=limit)
    assert again_log.equals(stopped) and all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    weights, log = train(tmp_path)
    again, again_log = train(tmp_path, stop_before=0)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert again_log.equals(log)


def test_the_log_file_has_each_step_once_after_a_torn_last_line(tmp_path: Path) -> None:
    with pytest.raises(Broken):
        train(tmp_path, stop_before=7)
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 7, "lo')
    train(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))


def test_an_unfinished_checkpoint_is_ignored_and_older_ones_are_removed(tmp_path: Path) -> None:
    weights, _ = train(tmp_path / "whole")
    with pytest.raises(Broken):
        train(tmp_path / "broken", stop_before=5)
    folder = tmp_path / "broken" / "checkpoints"
    (folder / checkpoint.UNFINISHED / "engine").mkdir(parents=True)
    (folder / checkpoint.UNFINISHED / "engine" / "mp_rank_00_model_states.pt").write_bytes(b"half")
    assert sorted(path.name for path in folder.iterdir()) == ["00000004", "latest", "unfinished"]
    resumed, _ = train(tmp_path / "broken")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert sorted(path.name for path in folder.iterdir()) == ["00000009", "latest"]


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_delete(tmp_path: Path) -> None:
    with pytest.raises(Broken):
        train(tmp_path, stop_before=3)
    next((tmp_path / "checkpoints").rglob("*model_states.pt")).write_bytes(b"damaged")
    with pytest.raises(PoseRftError, match=r"00000002.*delete it"):
        train(tmp_path)


@pytest.mark.slow
def test_a_killed_process_resumes_with_the_same_bits(tmp_path: Path) -> None:
    weights, _ = train(tmp_path / "whole")
    script = (
        "import sys; from pathlib import Path;"
        "from tests.training.test_loop import train; train(Path(sys.argv[1]), stop_before=5, kill=True)"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "killed")]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "MASTER_PORT")}
    for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        environment.pop(name, None)
    done = subprocess.run(arguments, capture_output=True, env=environment, cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    resumed, _ = train(tmp_path / "killed")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
