"""`pose-rft plan`: every preset, without a network, in one table."""

import re
import socket
from functools import cache

import pytest
import yaml
from typer.testing import CliRunner

from pose_rft.cli import app
from pose_rft.cost.hardware import GPUS
from pose_rft.cost.plan import Plan, make_plan, preset_path, table
from pose_rft.errors import PoseRftError
from pose_rft.params_file import read_yaml


@cache
def papers_plan() -> Plan:
    return make_plan(preset_path("paper"), GPUS["H200"])


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the plan wants the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("preset", ["micro", "sample", "study", "paper", "paper_best"])
def test_a_preset_is_planned_as_a_table(preset: str) -> None:
    result = CliRunner().invoke(app, ["plan", "--preset", preset])
    assert result.exit_code == 0, result.output
    for word in ("parameters", "trained", "ZeRO stage", "tokens a step", "FLOPs a step", "on 8 GPUs", "MFU 0.35"):
        assert word in result.output, word
    assert len(re.findall(r"^  total ", result.output, re.M)) == 4, "parameters and memory, of SFT and of RFT"
    assert max(map(len, result.output.splitlines())) <= 120


def test_the_papers_plan_has_the_papers_sizes() -> None:
    plan = papers_plan()
    sft, rft = plan.trainings
    assert (sft.steps, sft.batch, rft.steps, rft.batch, rft.group) == (10_000, 80, 1000, 16, 8)
    assert 7.5e9 < sum(count.total for count in rft.parameters.values()) < 8.5e9
    image_prompt = 576 + 24
    assert 0 < rft.unique < 16 * (image_prompt + 100 + 8 * 48) and rft.logical > 6 * rft.unique
    total = {key: sum(parts.values()) for key, parts in rft.memory.items()}
    assert total[8, 0] > total[8, 1] > total[8, 2] > total[8, 3]
    assert rft.memory[8, 2]["weights"] == pytest.approx(2 * sum(c.total for c in rft.parameters.values()))
    for training in plan.trainings:
        assert training.step_seconds[8] < training.step_seconds[1]
    # Forward and backward of 80 examples of about 480 tokens through 7 B frozen weights: 4 N a token at least.
    assert 4 * 6.6e9 * sft.unique < sum(sft.flops.values()) < 6.5 * 6.9e9 * sft.unique


def test_a_better_mfu_halves_the_dense_time_and_nothing_else() -> None:
    slow, fast = (make_plan(preset_path("sample"), GPUS["H200"], mfu).trainings[0] for mfu in (0.35, 0.7))
    assert slow.step_seconds[1] == pytest.approx(2 * fast.step_seconds[1]) and slow.flops == fast.flops


def test_a_batch_that_does_not_split_is_noted() -> None:
    plan = papers_plan()
    assert "on 8 GPUs set rft.engine.accumulation to 2" in table(plan)


def test_a_model_of_unknown_size_is_named_with_what_is_known(tmp_path) -> None:
    content = read_yaml(preset_path("paper"))
    content["base_model"]["source"] = "someone/llava-9b"
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(PoseRftError, match=r"someone/llava-9b are not known, expected one of llava-hf/llava-1.5-7b-hf"):
        make_plan(path, GPUS["H200"])


def test_unknown_presets_and_gpus_are_refused_with_the_known_ones() -> None:
    with pytest.raises(PoseRftError, match="'huge', expected one of micro, paper, paper_best, sample, smollm, study"):
        preset_path("huge")
    result = CliRunner().invoke(app, ["plan", "--preset", "micro", "--gpu", "abacus"])
    assert isinstance(result.exception, PoseRftError) and "H100" in str(result.exception)
