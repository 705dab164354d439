"""What a step's row says about its cost."""

import pytest
import torch

from pose_rft.hygrpo.step_log import StepLog
from pose_rft.policy.counting import Group
from tests.support.rft_fakes import LORA, make_trainer, rft_params


@pytest.mark.parametrize(
    "changes", [{}, {"lora": LORA}, {"updates_per_rollout": 2}, {"engine": {"lr": 1e-3, "accumulation": 2}}]
)
def test_a_row_has_the_cost_of_exactly_its_groups(tmp_path, changes):
    params = rft_params(**changes)
    seen = []
    trainer, _ = make_trainer(tmp_path, params, after=lambda step, experiences: seen.extend(experiences))
    row = trainer.step(0).values
    groups = [
        Group(len(e.prompts.ids[b]), tuple(e.answers.lengths[b].tolist()), e.prompts.examples[b].image is not None)
        for e in seen
        for b in range(len(e.prompts))
    ]
    assert len(groups) == params.batch
    unique, logical = sum(g.unique for g in groups), sum(g.logical for g in groups)
    flops = trainer.costs.rft_step(groups, params.updates_per_rollout).total
    assert row["num_tokens"] == unique and row["flops"] == pytest.approx(flops)
    assert row["tokens_per_second/unique"] * row["step_time"] == pytest.approx(unique)
    assert row["tokens_per_second/logical"] * row["step_time"] == pytest.approx(logical)
    assert row["flops_per_second"] == pytest.approx(flops / row["step_time"])
    assert row["memory/max_gib"] > 0.05
    phases = sum(seconds for name, seconds in row.items() if name.startswith("time/"))
    assert 0 < phases <= row["step_time"]


def test_a_policy_that_is_not_ours_has_no_flops_but_its_times():
    log = StepLog(1, torch.device("cpu"))
    with log.phase("score"):
        pass
    log.add({"reward": 1.0})
    row = log.values()
    assert {"reward", "time/score", "step_time", "memory/max_gib"} <= set(row) and not {
        "flops_per_second",
        "flops",
    } & set(row)
