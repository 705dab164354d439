"""Distribution, meaning and validation sets: what is measured, what the summary keeps, what the tables show."""

import json
from dataclasses import replace

import pytest
import torch

from pose_rft.body.rotations import matrix_to_sixd
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.evaluation import distribution, posecodes, protocols
from pose_rft.evaluation.distribution_tables import extra_tables, whole_summary
from pose_rft.evaluation.protocols import EvaluateParams
from pose_rft.evaluation.sets import asked_sets
from pose_rft.evaluation.tables import RUNS
from pose_rft.evaluation.terminal import print_tables
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.report import build
from pose_rft.report.build import reliability_charts
from tests.evaluation.test_protocols import prediction, turns
from tests.evaluation.test_tables import write_results
from tests.support.rft_fakes import FakeRetrieval


@pytest.fixture(scope="module")
def body(tiny_folder):
    return load_body_model(tiny_folder)


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def off_by(sigma: float, told: float, n: int = 24, factor: float = 1.0, shown: bool = True, point: bool = False):
    """A policy whose means miss by `sigma` and that says `told`; calibrated by `factor`; and the true joints."""
    asked = prediction(turns(0, n), [shown] * n)
    masked = tuple(replace(e, pose_mask=torch.ones(24, dtype=torch.bool)) for e in asked.examples)
    truth = torch.stack([e.pose6d.flatten() for e in masked])
    mean = truth + sigma * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    poses = PoseDistribution(mean, None if point else torch.full_like(mean, told).log())
    scaled = poses if point else poses.scaled(torch.full((24,), factor))
    return replace(asked, examples=masked, poses=poses, drawn=mean), scaled, protocols.true_text_poses(asked)


def test_a_policy_that_knows_how_far_it_errs_is_covered_and_one_that_is_too_sure_is_not_until_calibrated(body):
    asked, scaled, truth = off_by(0.1, 0.1)
    right = distribution.measured(asked, scaled, protocols.eval_joints(body, truth), body, noise)
    asked, scaled, truth = off_by(0.1, 0.02, factor=5.0)
    sure = distribution.measured(asked, scaled, protocols.eval_joints(body, truth), body, noise)
    assert right["coverage_90"] == pytest.approx(0.9, abs=0.02) and right["rms_z"] == pytest.approx(1, abs=0.05)
    assert right["joint_coverage_90"] == pytest.approx(0.9, abs=0.06)
    assert sure["coverage_90"] < 0.4 and sure["rms_z"] == pytest.approx(5, abs=0.3)
    assert sure["calibrated"]["coverage_90"] == pytest.approx(0.9, abs=0.02)
    assert sure["nll_per_number"] > right["nll_per_number"] == pytest.approx(sure["calibrated"]["nll_per_number"])
    assert sure["energy_score"] > sure["calibrated"]["energy_score"]
    assert sure["spread"] < right["spread"] and sure["best_of_100_mpjpe"] > right["best_of_100_mpjpe"]
    for found in (right, sure, sure["calibrated"]):
        bests = [found[f"best_of_{n}_mpjpe"] for n in (1, 5, 25, 100)]
        assert bests == sorted(bests, reverse=True)
        shares = list(found["reliability"].values())
        assert shares == sorted(shares) and len(shares) == 19


def test_a_point_is_measured_without_density_and_silence_not_at_all(body):
    asked, scaled, truth = off_by(0.1, 1.0, point=True)
    joints = protocols.eval_joints(body, truth)
    found = distribution.measured(asked, scaled, joints, body, noise)
    assert found["spread"] == 0 and found["best_of_100_mpjpe"] == found["energy_score"] == found["best_of_1_mpjpe"]
    assert not {"coverage_90", "nll_per_number", "calibrated"} & found.keys()
    asked, scaled, _ = off_by(0.1, 0.1, shown=False)
    assert distribution.measured(asked, scaled, joints, body, noise) == {}
    assert distribution.drawn_features(asked, FakeRetrieval(), noise()) == {}


def test_samples_without_a_fit_count_for_joints_alone(body):
    asked, scaled, truth = off_by(0.1, 0.1)
    without = tuple(replace(e, pose6d=None, pose_mask=None) if i % 2 else e for i, e in enumerate(asked.examples))
    joints = protocols.eval_joints(body, truth)
    whole = distribution.measured(asked, scaled, joints, body, noise)
    part = distribution.measured(replace(asked, examples=without), scaled, joints, body, noise)
    assert part["energy_score"] == whole["energy_score"] and part["coverage_90"] != whole["coverage_90"]


def test_features_of_the_truth_itself_are_near_those_of_the_truth(body):
    near, far = (off_by(sigma, 0.01, n=60)[0] for sigma in (0.01, 1.5))
    close, away = (distribution.drawn_features(one, FakeRetrieval(), noise()) for one in (near, far))
    assert close["fid"] < away["fid"] and close["true_diversity"] == away["true_diversity"] > 0


def test_the_posecode_judge_knows_the_truth_and_both_grammars_state_facts_of_it(body):
    asked = prediction(turns(3, 30), [True] * 30)
    codes = posecodes.true_codes(asked.examples, body)
    stated, poses = {"human": codes}, {"human": turns(3, 30)}
    for grammar in posecodes.GRAMMARS:
        examples, stated[grammar] = posecodes.asked_in(grammar, asked.examples, codes, ("Show: {caption}",))
        poses[grammar] = turns(3, 30)
        again, _ = posecodes.asked_in(grammar, asked.examples, codes, ("Show: {caption}",))
        assert [e.question for e in examples] == [e.question for e in again] == [f"Show: {e.caption}" for e in examples]
        assert all(set(told) <= set(own) for told, own in zip(stated[grammar], codes, strict=True))
    found = posecodes.agreements(poses, stated, body)
    constant = posecodes.constant(matrix_to_sixd(turns(9, 1)).flatten(), stated, body)
    assert set(found) == {"precision", "recall", "by_kind", "unheard", "human"} == set(constant)
    for one in (found, found["unheard"], found["human"]):
        assert one["precision"] > 0.97 and one["recall"] > 0.97, "6D and back costs a fact at an edge at most"
    assert constant["recall"] < 0.6 < found["recall"]


def params(**changes: object) -> EvaluateParams:
    sets = {"image_sets": {"3dpw": "3dpw/test"}, "validation_sets": {"bedlam": "bedlam/val"}}
    rest: dict[str, object] = {"text_set": "posescript/test"}
    rest |= {"batch": 1, "max_new_tokens": 1, "cache_tokens": False, "mean_pose_sets": ["h36m"], "mean_pose_samples": 1}
    return EvaluateParams.model_validate(sets | rest | {"random_repeats": 1, "sentence_encoder": "x"} | changes)


def test_validation_sets_are_told_apart_from_test_sets_and_may_be_missing():
    whole = asked_sets(params(), lambda names: names)
    test, validation = ({"3dpw": "3dpw/test"}, {"bedlam": "bedlam/val"})
    captions = {role: {"posescript": f"posescript/{split}"} for role, split in (("test", "test"), ("val", "val"))}
    assert whole.roles() == {"test": test | captions["test"], "validation": validation | captions["val"]}
    assert set(whole.asked) == {
        "3dpw/test",
        "bedlam/val",
        "posescript/test",
        "posescript/val",
        "llava_instruct/heldout",
    }
    part = asked_sets(params(), lambda names: [name for name in names if not name.endswith("/val")])
    assert part.roles()["validation"] == {} and part.test == test


def test_recall_may_be_measured_on_validation_captions_and_its_set_must_be_there():
    chosen = asked_sets(params(text_set="posescript/val"), lambda names: names)
    assert chosen.text == "posescript/val" and "posescript/test" not in chosen.asked
    assert chosen.roles()["test"]["posescript"] == "posescript/val"
    with pytest.raises(PoseRftError, match=r"`evaluate\.text_set` is posescript/tets"):
        asked_sets(params(text_set="posescript/tets"), lambda names: [n for n in names if n != "posescript/tets"])


def with_measures(folder):
    """The results of `test_tables` with what `stages.evaluate` measures of distribution, meaning and validation."""
    share = {"precision": 0.5, "recall": 0.4}
    kinds = ("posture", "direction", "bend", "contact", "trunk", "relation")
    judged = share | {"by_kind": dict.fromkeys(kinds, share), "unheard": share, "human": share}
    for i, run in enumerate(RUNS):
        path = folder / f"evaluate_{run}/metrics.json"
        content = json.loads(path.read_text())
        spread = {"samples": 9, "energy_score": 80.0 - i, "spread": 10.0}
        spread |= {f"best_of_{n}_mpjpe": 100.0 - n / 2 for n in (1, 5, 25, 100)}
        if run != "sft_point":
            density = {"coverage_90": 0.62, "nll_per_number": 3.0, "reliability": {"50": 0.4, "90": 0.62, "5": 0.02}}
            spread |= density | {"calibrated": density | {"coverage_90": 0.9}}
        sets = dict.fromkeys(("3dpw", "h36m_p2", "posescript"), spread)
        validated = {name: content[name] for name in ("pose_error", "recall", "heldout_reward")}
        content |= {
            "distribution": sets,
            "posecodes": {"policy": judged, "mean_pose": judged},
            "validation": validated | {"distribution": sets},
            "sets": {"test": {"3dpw": "3dpw/test"}, "validation": {"bedlam": "bedlam/val"}},
        }
        path.write_text(json.dumps(content))
    return folder


def test_the_summary_keeps_every_run_and_no_row_for_what_has_no_distribution(tmp_path):
    content = whole_summary(with_measures(write_results(tmp_path)))
    for name in ("3dpw", "h36m_p2"):
        assert set(content["distribution"][name]) == set(RUNS), "and none for the encoder's lifter"
        found = content["distribution"][name]["rft_hygrpo"]
        wanted = {"best_of_25_mpjpe", "best_of_100_mpjpe", "coverage_90", "nll_per_number", "energy_score"}
        assert wanted <= set(found) and found["calibrated"]["coverage_90"] == 0.9
        assert "reliability" not in found and "reliability" not in found["calibrated"]
    assert set(content["posecodes"]) == {"mean_pose", *RUNS}
    assert content["posecodes"]["rft_hygrpo"]["recall"] == 0.4
    assert content["sets"]["validation"] == {"bedlam": "bedlam/val"}
    assert set(content["validation"]["pose_error"]["3dpw"]) == {"mean_pose", *RUNS}
    assert set(content["validation"]["recall"]["judge"]["full"]) == set(RUNS)


def test_tables_have_a_row_for_each_set_and_run(tmp_path, capsys):
    folder = with_measures(write_results(tmp_path))
    content = whole_summary(folder)
    fourth, fifth, validation = extra_tables(content)
    assert len(fourth.rows) == 3 * len(RUNS) and len(fifth.rows) == 1 + len(RUNS)
    for table in (fourth, fifth, validation):
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert any("62 / 90" in cell for cell in fourth.rows[1].cells)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(content))
    print_tables(path)
    shown = capsys.readouterr().out
    assert "Table 4" in shown and "Table 5" in shown and "Validation sets" in shown
    assert extra_tables({}) == [], "a summary of before has none"


def test_each_test_set_with_a_density_has_a_reliability_diagram(tmp_path):
    charts = reliability_charts(with_measures(write_results(tmp_path)))
    assert len(charts) == 3 and all(chart.startswith("<svg") and "calibrated" in chart for chart in charts)


def test_the_diagrams_line_goes_from_low_levels_to_high_ones(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(build, "reliability_chart", lambda title, series: drawn.append(series) or "")
    build.reliability_charts(with_measures(write_results(tmp_path)))
    assert all(levels == [5.0, 50.0, 90.0] for series in drawn for levels, _ in series.values())
