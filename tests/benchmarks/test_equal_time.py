"""Methods at equal time: what they set, how many steps they get, and what their table says."""

import json
import shutil

import pytest

from benchmarks import equal_time, study_figure
from benchmarks.equal_time import (
    CHOSEN_WITH,
    FRESH,
    VALIDATION,
    Timed,
    ledger,
    of_distribution,
    run_of,
    steps_for,
    table,
)
from benchmarks.methods import HYGRPO, METHODS, WIDE, Method
from benchmarks.study import GROUPS, PRESET, SEEDS
from flows.sweep import override
from pose_rft.evaluation.protocols import EvaluateParams
from pose_rft.hygrpo.params import RFTParams
from pose_rft.params import parse
from pose_rft.params_file import read_yaml
from pose_rft.policy.params import BaseModelParams, PolicyParams
from pose_rft.retrieval.params import RetrievalParams
from pose_rft.training.sft import SFTParams

ALL = [(group, method) for group, methods in METHODS.items() for method in methods]


@pytest.mark.parametrize(("group", "method"), ALL, ids=[f"{group}: {method.label}" for group, method in ALL])
def test_every_method_sets_keys_that_the_preset_has_to_other_values(group, method):
    base = read_yaml(PRESET)
    content = override(base, {**CHOSEN_WITH, **VALIDATION, **method.overrides, "rft.seed": 1})
    parse(content["rft"], RFTParams, "rft")
    parse(content["retrieval"], RetrievalParams, "retrieval")
    parse(content["evaluate"], EvaluateParams, "evaluate")
    bases = (base, read_yaml(PRESET.with_name("sample.yaml")))
    changed = any(override(one, method.overrides) != one for one in bases)
    assert changed or method == HYGRPO or method.run != "rft_hygrpo"


def test_the_wide_form_sets_keys_that_the_preset_has():
    content = override(read_yaml(PRESET), WIDE)
    base = parse(content["base_model"], BaseModelParams, "base_model")
    assert base.tiny is not None and base.tiny.language.width == 1024
    assert content["image"]["size"] % base.tiny.vision.patch == 0
    for name, kind in (("sft", SFTParams), ("rft", RFTParams), ("policy", PolicyParams)):
        parse(content[name], kind, name)


def test_the_paper_s_method_is_the_paper_preset_s():
    (method,) = [m for m in METHODS["opponents"] if m.label == "the paper's settings"]
    contents = read_yaml(PRESET.with_name("paper.yaml")), override(read_yaml(PRESET), method.overrides)
    paper, own = (parse(content["rft"], RFTParams, "rft").model_dump() for content in contents)
    for key in {name.split(".")[1] for name in method.overrides} - {"engine"}:  # its rate is for 7 billion parameters
        ours, theirs = ({**one[key], "sentence_encoder": ""} if key == "rewards" else one[key] for one in (own, paper))
        assert ours == theirs, key


def test_what_is_chosen_reads_no_test_set_and_the_main_table_no_seed_that_was_chosen_with():
    read = override(read_yaml(PRESET), VALIDATION)["evaluate"]
    assert not {"3dpw/test", "h36m/p2"} & set(read["image_sets"].values()) and read["text_set"] == "posescript/val"
    used = {CHOSEN_WITH["seed.train"], *SEEDS, *(run.overrides.get("seed.train") for run in GROUPS["poses"])}
    assert not used & {start["seed.train"] for start in FRESH}
    assert len({start["seed.train"] for start in FRESH}) == 5 and len({start["seed.data"] for start in FRESH}) == 2
    assert read_yaml(PRESET)["seed"]["data"] not in {start["seed.data"] for start in FRESH}


def test_steps_fill_the_time_to_two_digits():
    assert steps_for(400 * 0.6, 0.6) == 400
    assert steps_for(240.0, 0.37) == 650
    assert steps_for(100.0, 0.031) == 3200
    assert steps_for(0.1, 5.0) == 1
    for seconds in (0.05, 0.3, 1.7):
        assert steps_for(240.0, seconds) * seconds == pytest.approx(240.0, rel=0.05)


def test_a_run_of_a_method_has_its_steps_and_its_start():
    run = run_of(Timed(Method("GRPO", {"rft.batch": 8}, "rft_grpo"), 70, 0.5), {"rft.seed": 2})
    assert run.overrides == {"rft.seed": 2, "rft.batch": 8, "rft.steps": 70}
    assert run.evaluated == ("sft_gaussian", "rft_grpo")


def test_the_table_has_mean_deviation_and_change_of_each_run_against_its_own_start():
    found = {
        "one": [{"before": {"PA": 100.0}, "after": {"PA": 90.0}}, {"before": {"PA": 200.0}, "after": {"PA": 190.0}}]
    }
    rows = table(found, {"one": Timed(HYGRPO, 400, 0.6)}, ["PA"]).splitlines()
    assert rows[0] == "| | SFT, the start | one |"
    assert rows[2] == "| PA | 150.00 ± 70.71 | 140.00 ± 70.71 (-7.5 ± 3.5) |"
    assert rows[3:] == ["| steps | | 400 |", "| seconds a step | | 0.60 |"]
    assert "rft.batch = 8" in ledger("main", [Timed(Method("x", {"rft.batch": 8}), 4, 1.0)], FRESH, "the test sets")


def test_a_method_is_compared_with_the_sft_that_it_began_with(monkeypatch, tmp_path):
    """SFT for all the time has no other SFT in its clone than its own end."""
    monkeypatch.setattr(equal_time, "numbers", lambda clone, run, columns: {"of": (clone.name, run)})
    (run,) = equal_time.seen([tmp_path / "start"], [tmp_path / "longer"], "sft_gaussian", {})
    assert run == {"before": {"of": ("start", "sft_gaussian")}, "after": {"of": ("longer", "sft_gaussian")}}


def test_an_evaluation_without_a_set_leaves_its_cells_empty():
    read = of_distribution("3dpw", "coverage_90")
    assert read({"distribution": {"3dpw": {"coverage_90": 88.0}}}) == 88.0
    assert read({}) != read({})


@pytest.mark.parametrize("group", METHODS)
def test_a_group_is_timed_run_and_told(group, monkeypatch, tmp_path, capsys):
    asked = []

    def reproduce(run, root, targets=(), preset=PRESET):
        asked.append((run.label, tuple(targets), run.overrides))
        clone = root / str(len(asked))
        for name in ("sft_gaussian", "rft_hygrpo", "rft_grpo"):
            folder = clone / f"results/{name}"
            folder.mkdir(parents=True)
            first = {"seconds": 0.5 if run.label.endswith("HyGRPO, as in the preset") else 0.25}
            (folder / "log.jsonl").write_text(json.dumps(first) + "\n")
        return clone

    monkeypatch.setattr(equal_time, "reproduce", reproduce)
    monkeypatch.setattr(equal_time, "numbers", lambda clone, name, columns: dict.fromkeys(columns, 2.0))
    (tmp_path / "presets").mkdir()
    shutil.copy(PRESET, tmp_path / PRESET)
    equal_time.study(group, tmp_path)
    shown = capsys.readouterr().out
    runs = [entry for entry in asked if not entry[1]]
    starts = len(FRESH) if group == "main" else 3
    assert len(runs) == starts * len(METHODS[group])
    long = read_yaml(PRESET)["sft"]["steps"] + 800  # twice as fast a step as the clock's, after the start's own
    assert {(o.get("rft.steps"), o.get("sft.steps")) for _, _, o in runs} <= {(800, None), (None, long)}
    assert any("sft.steps" in o for _, _, o in runs) == any(m.run == "sft_gaussian" for m in METHODS[group])
    first = [(names, o.get("seed.data"), o["seed.train"]) for _, names, o in asked if "seed.train" in o and names]
    assert len(set(first)) == len(first) == (2 + 10 if group == "main" else 1 + 1), "made twice, or not first"
    assert all(f"[{method.label}] " in shown and f"{method.label} (" in shown for method in METHODS[group])
    assert "judge T2P" in shown and "posecode recall" in shown


def test_the_reliability_diagram_is_drawn_from_evaluations(tmp_path):
    for run, line in {"a": {"10": 0.2, "5": 0.1, "90": 0.95}, "b": {"90": 0.85, "10": 0.3, "5": 0.2}}.items():
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.json").write_text(json.dumps({"distribution": {"3dpw": {"reliability": line}}}))
    levels, shares = study_figure.coverage([tmp_path / "a", tmp_path / "b"], "3dpw")
    assert levels == [0.05, 0.1, 0.9] and shares.tolist() == [[0.1, 0.2, 0.95], [0.2, 0.3, 0.85]]
    study_figure.reliability({"SFT": [tmp_path / "a", tmp_path / "b"]}, tmp_path / "study_main.png")
    assert (tmp_path / "study_main.png").read_bytes().startswith(b"\x89PNG")
