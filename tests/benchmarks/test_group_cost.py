"""The benchmark of a group's cost: its ways do the same work, and its GPU path needs three packages."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import group_cost
from benchmarks.group_step import PHASES, Adapters, Step, Way, tiny_config

ROOT = Path(__file__).resolve().parents[2]
PROMPT, GROUP = 12, 3


@pytest.mark.parametrize("lora", [None, Adapters(rank=2)])
@pytest.mark.parametrize("way", ["repeated", "dense"])
def test_every_way_has_the_gradients_of_the_shared_prompt(way: Way, lora: Adapters | None) -> None:
    step = Step(tiny_config(), prompt=PROMPT, answer=6, prompts=2, lora=lora, encode=True)
    answers = step.rollout(GROUP, "shared")
    found = []
    for one in ("shared", way):
        torch.manual_seed(1)  # the rewards
        step.optimiser.zero_grad()
        step.train(answers, step.judged(answers, one), one)
        found.append([parameter.grad.clone() for parameter in step.trained if parameter.grad is not None])
    shared, other = found
    assert len(shared) == len(other) > 5 and any(bool(gradient.abs().sum() > 0) for gradient in shared)
    for a, b in zip(shared, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_ways_roll_out_the_same_answers_from_the_same_dice() -> None:
    step = Step(tiny_config(), prompt=PROMPT, answer=6, prompts=2, encode=True)
    answers = []
    for way in ("shared", "repeated"):
        torch.manual_seed(2)
        answers.append(step.rollout(GROUP, way))  # type: ignore[arg-type]
    assert torch.equal(answers[0].ids, answers[1].ids)
    assert (answers[0].lengths == 6).all(), "no answer ends early"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_path_of_the_gpu_runs_on_a_tiny_model(dtype: torch.dtype) -> None:
    rows = group_cost.on_gpu(tiny_config(), "cpu", dtype, (2, 4), PROMPT, prompts=2, rounds=1)
    assert [(row.way, row.group) for row in rows] == [(w, g) for g in (2, 4) for w in ("shared", "repeated")]
    for row in rows:
        assert set(row.phases) == set(PHASES) and row.seconds == pytest.approx(sum(row.phases.values()))
        assert 0 < row.mfu < 1 and row.memory > 0.05
        assert row.unique * row.seconds == pytest.approx(2 * (PROMPT + 12 * row.group))
        assert row.logical * row.seconds == pytest.approx(2 * row.group * (PROMPT + 12))
    header, rule = group_cost.GPU_HEADER.splitlines()
    assert {line.count("|") for line in (header, rule, group_cost._gpu_line(rows[0]))} == {header.count("|")}


def test_tables_hold_every_key_and_mark_what_misses_its_target() -> None:
    ratios = {
        "train_speedup": 5.5,
        "rollout_speedup": 2.4,
        "g8_over_g1": 1.2,
        "g16_over_g1": 1.6,
        "trl_step_speedup": 7,
    }
    curve = {group: float(group) for group in group_cost.CURVE}
    steps = {"shared": curve, "dense": curve}
    text = group_cost.cpu_tables(group_cost.Results(ratios, {"train, shared": 1.0}, steps, {"shared 8": 100.0}, "box"))
    assert all(f"`{key}`" in text for key in ratios)
    assert re.findall(r"`(\w+)` \| [\d.]+ \(!\)", text) == ["rollout_speedup", "g16_over_g1"]


ABSENT = {"pydantic", "deepspeed", "polars", "opencv-python-headless", "pillow", "scipy"}


def closure(names: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed packages that these ones need."""
    found: dict[str, importlib.metadata.Distribution] = {}
    while names:
        name = names.pop().lower().replace("_", "-")
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found and name not in ABSENT:
            found[name] = distribution
            needed = [need for need in distribution.requires or [] if not re.search(r"extra\s*==", need)]
            names += [re.match(r"[\w.-]+", need)[0] for need in needed]  # type: ignore[index]
    return found


def test_the_command_s_tiny_form_prints_a_row_for_each_way_and_group(capsys: pytest.CaptureFixture[str]) -> None:
    group_cost.main(["--tiny", "--rounds", "1", "--prompts", "1", "--threads", "1"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| {w}", f"{g}"] for g in (8, 32) for w in ("shared", "repeated")
    ]


@pytest.mark.slow
def test_the_path_of_the_gpu_needs_torch_transformers_peft_and_roma_only(tmp_path: Path) -> None:
    packages = closure(["torch", "transformers", "peft", "roma"])
    for distribution in packages.values():
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            link = tmp_path / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        "import torch; from benchmarks import group_cost; from benchmarks.group_step import tiny_config\n"
        "rows = group_cost.on_gpu(tiny_config(), 'cpu', torch.float32, (2,), 12, 2, 1)\n"
        "print(len(rows), 'pydantic' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["2", "False"]
