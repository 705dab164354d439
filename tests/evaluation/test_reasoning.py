"""ChatPose's benchmarks in the evaluation: how they are asked, what is measured, what summary and tables keep."""

import json
from dataclasses import replace

import pytest
import torch

from pose_rft.body.rotations import matrix_to_sixd
from pose_rft.body.smpl import load_body_model
from pose_rft.evaluation.distribution_tables import extra_tables, whole_summary
from pose_rft.evaluation.joint_readers import body_joints
from pose_rft.evaluation.measuring import Measured
from pose_rft.evaluation.sets import asked_sets
from pose_rft.evaluation.tables import RUNS
from pose_rft.inference.answers import heldout_examples
from pose_rft.record import Caption, Turn
from tests.evaluation.test_distribution_tables import params, with_measures
from tests.evaluation.test_protocols import PROCESSOR, prediction, turns
from tests.evaluation.test_tables import write_results
from tests.support.rft_fakes import FakeRetrieval, make_trainer
from tests.support.training_fakes import image_record, record, samples

RPE, SPG = "chatpose/rpe_pose", "chatpose/spg"
QUESTION = "The woman reads, can you give the SMPL pose of this person?"
SAID = {"captions": (Caption("a person sits", "human"),), "dialogue": (Turn("human", QUESTION),)}


@pytest.fixture(scope="module")
def body(tiny_folder):
    return load_body_model(tiny_folder)


def test_a_reasoning_set_is_asked_for_by_its_task_and_may_be_missing():
    asked = asked_sets(params(reasoning_sets=(RPE, SPG)), lambda names: names)
    assert asked.reasoning == (RPE, SPG)
    assert asked.asked[RPE] == ("image_text_pose", None) and asked.asked[SPG] == ("text_pose", None)
    part = asked_sets(params(reasoning_sets=(RPE, SPG)), lambda names: [n for n in names if n != SPG])
    assert part.reasoning == (RPE,) and SPG not in part.asked
    assert asked_sets(params(), lambda names: names).reasoning == ()


def test_a_sample_that_brings_its_question_is_asked_that_and_no_template(tmp_path):
    trainer, processor = make_trainer(tmp_path)
    body = trainer.tools.rewards.body
    pictured = samples(RPE, [image_record(0, dataset="chatpose", box=None, **SAID)], tmp_path / "rpe")
    written = samples(SPG, [record(0, "chatpose", "amass", **SAID)], tmp_path / "spg")
    (about,) = heldout_examples("image_text_pose", pictured, processor, body)
    (without,) = heldout_examples("text_pose", written, processor, body, human_only=True)
    assert about.question == without.question == QUESTION
    assert about.image is not None and without.image is None and without.caption == "a person sits"


def measured(name, asked, sets, body) -> Measured:
    judges = {"reward": FakeRetrieval(), "judge": FakeRetrieval()}
    model = type("Model", (), {"pose_head": type("Head", (), {"mean_pose": matrix_to_sixd(turns(9, 1)).flatten()})})()
    nothing = None
    return Measured(
        model, PROCESSOR, {name: (asked, {})}, sets, nothing, judges, body, lambda gender: body, nothing, params(), 0
    )


def test_errors_are_of_the_person_who_was_meant(body, tmp_path):
    read = samples(RPE, [image_record(i, dataset="chatpose", **SAID) for i in range(3)], tmp_path)
    shown = prediction(read.rotations, [True] * 3)
    image = [example._replace(row=i) for i, example in enumerate([_ref()] * 3)]
    examples = tuple(replace(e, image=ref) for e, ref in zip(shown.examples, image, strict=True))
    right = measured(RPE, replace(shown, examples=examples), {RPE: read}, body).reasoning(RPE)
    assert right["mpjpe"] < 1e-2 and right["pa_mpjpe"] < 1e-2 and right["mpjre"] < 0.1
    assert right["samples"] == 3 and right["format"] == 1.0
    other = prediction(turns(5, 3), [True, True, False])
    wrong = measured(RPE, replace(other, examples=examples), {RPE: read}, body).reasoning(RPE)
    reached = body_joints(body, torch.cat([turns(5, 3)[:2], turns(9, 1)]), None)
    truth = body_joints(body, read.rotations, read.betas)
    by_hand = float((reached - truth).norm(dim=-1).mean() * 1000)
    assert wrong["mpjpe"] == pytest.approx(by_hand, rel=1e-4) and wrong["format"] == pytest.approx(2 / 3)
    assert wrong["mpjre"] > 5


def _ref():
    from pose_rft.batches.examples import ImageRef

    return ImageRef(RPE, 0, False)


def test_speculation_is_measured_by_recall_alone(body):
    shown = prediction(turns(0, 30), [True] * 30)
    found = measured(SPG, shown, {}, body).reasoning(SPG)
    assert set(found) == {"samples", "format", "recall"} and found["samples"] == 30
    assert set(found["recall"]) == {"reward", "judge"}
    assert set(found["recall"]["judge"]["full"]) == {"chance", "policy", "ground_truth"}


def with_reasoning(folder):
    pool = {"full": {"policy": {d: {"5": 10.0, "10": 20.0, "20": 30.0} for d in ("t2p", "p2t")}}}
    for i, run in enumerate(RUNS):
        path = folder / f"evaluate_{run}/metrics.json"
        content = json.loads(path.read_text())
        errors = {"samples": 50, "format": 1.0, "mpjpe": 200.0 + i, "pa_mpjpe": 90.0, "mpjre": 12.0}
        recall = {"samples": 780, "format": 1.0, "recall": {"reward": pool, "judge": pool}}
        path.write_text(json.dumps(content | {"reasoning": {RPE: errors, SPG: recall}}))
    return folder


def test_the_summary_and_table_6_have_them_where_a_run_has_them(tmp_path):
    folder = with_measures(write_results(tmp_path))
    without = whole_summary(folder)
    assert "reasoning" not in without and not any("Table 6" in table.title for table in extra_tables(without))
    content = whole_summary(with_reasoning(folder))
    assert content["reasoning"]["rpe_pose"]["rft_hygrpo"]["mpjpe"] == 203.0
    assert content["reasoning"]["spg"]["sft_point"]["recall"]["judge"]["t2p"]["10"] == 20.0
    (table,) = [table for table in extra_tables(content) if "Table 6" in table.title]
    assert table.columns == ("rpe_pose MPJPE", "rpe_pose PA-MPJPE", "rpe_pose MPJRE", "spg T2P", "spg P2T")
    assert table.rows[-1].cells == ("203.0", "90.0", "12.0", "10.0/20.0/30.0", "10.0/20.0/30.0")
    assert {key: value for key, value in content.items() if key != "reasoning"} == without
