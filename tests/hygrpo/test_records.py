import json

import polars as pl
import pytest
import torch

from pose_rft.hygrpo.run_artifacts import Records
from pose_rft.inference.answers import heldout_rewards, predict
from pose_rft.training import loop
from tests.support.rft_fakes import make_trainer, rft_params


@pytest.fixture
def trained(tmp_path):
    """A finished run of 4 steps with all its records."""
    trainer, processor = make_trainer(tmp_path, rft_params(steps=4))
    examples = [trainer.tools.draw(position) for position in range(24)]
    texts = [example for example in examples if example.task == "text_pose"][:2]

    def answer(asked):
        settings = {"end_token_id": processor.eos_token_id, "max_new_tokens": 12, "batch": 3}
        return predict(trainer.engine.module, trainer.tools.prepare, asked, **settings, generator=torch.Generator())

    rewards = trainer.tools.rewards
    records = Records(tmp_path / "scratch", answer, rewards, {"mixed": examples[:6]}, texts, 4, 2, 2, leader=True)
    tools = {"before": records.before, "after": records.after}
    trainer.tools = trainer.tools.__class__(**(vars(trainer.tools) | tools))
    log = loop.run(trainer.engine, trainer.step, 4, tmp_path / "scratch", 2, "rft", 0)
    return log, records.finish(tmp_path / "results", 4), tmp_path / "results", texts, answer


def test_heldout_rewards_are_in_the_log_now_and_then_and_at_the_end(trained):
    log, last, *_ = trained
    seen = log["heldout/mixed/format"].is_not_null().to_list()
    assert seen == [True, False, True, False]
    assert {"heldout/mixed/format", "heldout/mixed/joint", "heldout/mixed/joint.sampled"} <= set(last)


def test_candidates_have_both_rewards_and_both_advantages(trained):
    table = pl.read_parquet(trained[2] / "candidates.parquet")
    assert table["step"].unique().sort().to_list() == [0, 2]
    assert len(table) == 2 * 4 * 3  # pages x prompts x answers
    posed = table.filter("has_pose")
    assert (posed["pose_rewards"].list.len() == 2).all() and (posed["pose_advantages"].list.len() == 2).all()
    assert not table.filter(pl.col("format_reward") == 1.0).is_empty()
    assert {"text_reward", "text_advantage", "answer", "question"} <= set(table.columns)


def test_fixed_sentences_are_posed_at_four_moments(trained):
    content = json.loads((trained[2] / "fixed_sentences.json").read_text())
    texts = trained[3]
    assert [moment["step"] for moment in content["moments"]] == [0, 1, 2, 4]
    assert [sentence["caption"] for sentence in content["sentences"]] == [example.caption for example in texts]
    poses = torch.tensor([moment["poses"] for moment in content["moments"]])
    assert poses.shape == (4, len(texts), 24, 3) and not torch.equal(poses[0], poses[-1])


def test_a_run_without_candidates_has_an_empty_table_of_them(tmp_path):
    """SFT continued (`rft.reinforced: false`) has no rewards, and every out must be there."""
    trainer, _ = make_trainer(tmp_path)
    records = Records(tmp_path / "scratch", None, trainer.tools.rewards, {}, [], 4, 2, 2, leader=True)
    assert records.finish(tmp_path / "results", 4) == {}
    assert pl.read_parquet(tmp_path / "results/candidates.parquet").is_empty()


def test_a_look_at_the_policy_changes_nothing_about_it(trained):
    *_, texts, answer = trained
    first, second = answer(texts), answer(texts)
    assert torch.equal(first.mean, second.mean) and torch.equal(first.drawn, second.drawn)


def test_a_missing_pose_is_worth_nothing_and_vqa_has_no_pose_reward(tmp_path):
    trainer, processor = make_trainer(tmp_path)
    examples = [trainer.tools.draw(position) for position in range(24)]
    settings = {"end_token_id": processor.eos_token_id, "max_new_tokens": 1, "batch": 24}
    found = predict(trainer.engine.module, trainer.tools.prepare, examples, **settings, generator=torch.Generator())
    assert not found.has_pose.any(), "one token is no pose answer"
    rewards = heldout_rewards(found, trainer.tools.rewards)
    for example, joint, semantic in zip(examples, rewards["joint"], rewards["semantic"], strict=True):
        assert (joint == 0) == (example.task in ("image_pose", "image_text_pose"))
        assert (semantic == 0) == (example.task == "text_pose")
