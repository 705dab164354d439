"""The study's arithmetic: tables over seeds, and how noise is told from signal."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import torch

from benchmarks import study
from benchmarks.gradient_noise import signal_and_noise
from benchmarks.study import COLUMNS, GROUPS, PRESET, STEP_TIME, by_error, spread, table_3, table_of
from benchmarks.study_figure import PANELS, draw, heldout
from flows.sweep import override
from pose_rft.errors import PoseRftError
from pose_rft.evaluation.tables import BASELINE, RUNS
from pose_rft.hygrpo.params import RFTParams
from pose_rft.params import parse
from pose_rft.params_file import read_yaml
from pose_rft.policy.params import PolicyParams
from pose_rft.training.sft import SFTParams


def test_every_run_of_the_study_sets_keys_that_the_preset_has():
    base = read_yaml(PRESET)
    for run in (run for runs in GROUPS.values() for run in runs):
        content = override(base, run.overrides)
        parse(content["rft"], RFTParams, "rft")
        parse(content["policy"], PolicyParams, "policy")
        parse(content["sft"], SFTParams, "sft")
        assert content != base or run.overrides == {"seed.train": 0}, run.label  # that seed is the preset's own


def test_changes_are_of_each_seed_against_its_own_sft():
    def seed(sft: float, tuned: float) -> dict:
        return {name: dict.fromkeys([*COLUMNS, STEP_TIME], tuned if name == "rft_hygrpo" else sft) for name in RUNS}

    rows = table_3([seed(100.0, 90.0), seed(200.0, 180.0)]).splitlines()
    (change,) = [row for row in rows if row.startswith("| + Dist. + HyGRPO, change")]
    assert change.count("-10.0 ± 0.0") == len(COLUMNS)
    assert "| + Dist. + HyGRPO | 135.0 ± 63.6 |" in "\n".join(rows)
    one = table_of({"K = 1": seed(100.0, 90.0)}).splitlines()[-1]
    assert one.startswith("| K = 1 | 90.0 (-10.0) |") and one.endswith("| 90.00 |")
    control = {"SFT": {BASELINE: seed(100.0, 0.0)[BASELINE]}, "longer": {BASELINE: seed(95.0, 0.0)[BASELINE]}}
    *_, short, longer = table_of(control).splitlines()
    assert short.startswith("| SFT | 100.0 (+0.0) |") and longer.startswith("| longer | 95.0 (-5.0) |")


def test_a_figure_has_each_run_with_its_end_and_a_band_over_seeds(tmp_path):
    for seed in range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        rows = [{"step": step, "loss": 0.0} | dict.fromkeys(PANELS, float(step + seed)) for step in (0, 10)]
        text = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 19, "loss": 0.0}])
        (folder / "log.jsonl").write_text(text)
        (folder / "metrics.json").write_text(json.dumps(dict.fromkeys(PANELS, 20.0 + seed)))
    assert heldout(tmp_path / "1", next(iter(PANELS))) == ([0, 10, 20], [1.0, 11.0, 21.0])
    draw({"both": [tmp_path / "0", tmp_path / "1"], "one": [tmp_path / "0"]}, tmp_path / "images/study.png")
    assert (tmp_path / "images/study.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_of_several_groups_is_made_once_and_one_that_fails_stops_no_other(monkeypatch, tmp_path):
    made, reported = [], []

    def reproduce(run: study.Run, root: Path) -> Path:
        made.append(run.label)
        if run.label == "bad":
            raise PoseRftError("bad failed")
        return root / run.label

    monkeypatch.setattr(study, "reproduce", reproduce)
    monkeypatch.setattr(study, "report", lambda group, runs, clones, figures: reported.append((group, clones)))
    common, bad, good = study.Run("common", {}), study.Run("bad", {"a": 1}), study.Run("good", {"a": 2})
    failed = study.study({"one": [common, bad], "two": [common, good]}, tmp_path, None)
    assert failed == ["one: bad failed"]
    assert reported == [("two", [tmp_path / "common", tmp_path / "good"])]
    assert sorted(made) == ["bad", "common", "good", "shared"]


def test_runs_of_one_clone_get_the_evaluations_of_all_of_them_and_only_trained_ones_a_line(tmp_path):
    groups = {"longer_sft": GROUPS["longer_sft"], "table3": study.table_3_runs([0])}
    made = study.clones_of(groups)
    assert [set(run.evaluated) for run in made.values()] == [set(RUNS), {BASELINE}]
    assert set(study.clones_of({"longer_sft": GROUPS["longer_sft"]})["{'seed.train': 0}"].evaluated) == {
        BASELINE,
        study.TUNED,
    }
    lines = study.trainings("longer_sft", GROUPS["longer_sft"], [tmp_path] * 3)
    assert lines == {"SFT, then HyGRPO": [tmp_path / "results/rft_hygrpo"]}


def test_one_seed_has_no_deviation():
    assert spread([3.0], ".1f") == "3.0"
    assert spread([-1.0, -3.0], "+.1f") == "-2.0 ± 1.4"


def test_signal_and_noise_of_gradients_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    direction = torch.zeros(400)
    direction[:4] = 1.0
    drawn = 3.0 * direction + 0.5 * torch.randn(2000, 400, generator=generator)
    signal, noise = signal_and_noise(drawn)
    assert signal == pytest.approx(6.0, rel=0.02)  # 3 · √4
    assert noise == pytest.approx(10.0, rel=0.02)  # 0.5 · √400
    signal, _ = signal_and_noise(0.5 * torch.randn(50, 400, generator=generator))
    assert signal < 1.0  # the mean alone has a length of 10 / √50 = 1.4, all of it noise


def test_quarters_are_of_the_pictures_and_pair_before_with_after(tmp_path):
    for name, factor in (("sft_gaussian", 1.0), ("rft_hygrpo", 0.9)):
        folder = tmp_path / f"results/evaluate_{name}"
        folder.mkdir(parents=True)
        errors = [100.0, 100.0, 200.0, 200.0, 300.0, 300.0, 400.0, 400.0]
        content = {"dataset": ["3dpw"] * 8, "key": [str(i) for i in range(8)]}
        content |= {"mpjpe": [factor * e for e in errors], "pa_mpjpe": [e / 2 for e in errors]}
        pl.DataFrame(content).sample(fraction=1.0, shuffle=True, seed=1).write_parquet(folder / "image_pose.parquet")
    lines = by_error([tmp_path, tmp_path]).splitlines()[2:]
    assert lines[0] == "| best | 100 → 90 (-10.0 %) | 50 → 50 (+0.0 %) |"
    assert lines[3] == "| worst | 400 → 360 (-10.0 %) | 200 → 200 (+0.0 %) |"


def test_runs_of_the_same_values_take_turns_in_their_clone(monkeypatch, tmp_path):
    inside, most = 0, 0
    (tmp_path / "preset.yaml").write_text("rft: {lr: 1.0, steps: 5}")

    def reproduce_once(run, clone, targets):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        inside -= 1

    monkeypatch.setattr(study, "prepare", lambda root, params: root / str(params["rft"]["lr"]))
    monkeypatch.setattr(study, "_repro", reproduce_once)
    runs = [study.Run("as in the preset", {}), study.Run("named whole", {"rft.lr": 1.0})]
    with ThreadPoolExecutor(2) as pool:
        clones = list(pool.map(lambda run: study.reproduce(run, tmp_path, preset=Path("preset.yaml")), runs))
    assert clones[0] == clones[1] and most == 1
