"""What reinforcement changed survives saving: bfloat16, the paper's rate, the project's engine and trainer."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.inference.answers import Predictions, predict
from pose_rft.policy.hub import load_policy, save_policy
from pose_rft.policy.lora import without_adapters
from tests.support.rft_fakes import LORA, make_trainer, rft_params

STEPS = 6


def scores_of(model: Any, trainer: Any, prompts: Any, answers: Any) -> tuple[Tensor, Tensor]:
    """Token log-probabilities and the poses' means, as the trainer sees them."""
    with torch.no_grad():
        scores = trainer.tools.score(model.eval(), prompts, answers)
    return scores.token_log_prob.float(), scores.poses.mean.float()


def evaluated(model: Any, trainer: Any, asked: list[Example]) -> Predictions:
    """The answers that `evaluate` would judge."""
    settings = {"end_token_id": 2, "max_new_tokens": 14, "batch": 4, "generator": torch.Generator().manual_seed(0)}
    return predict(model, trainer.tools.prepare, asked, **settings)


def changes(model: Any) -> dict[str, Tensor]:
    """What the adapters add to each weight, float32."""
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            found[name] = sum(
                layer.scaling[a] * layer.lora_B[a].weight.float() @ layer.lora_A[a].weight.float() for a in layer.lora_A
            )
    return found


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_a_policy_trained_in_bf16_is_the_same_after_saving(tmp_path: Path, lora: dict[str, Any] | None) -> None:
    engine = {"lr": 1e-6, "bf16": True, "zero_stage": 2}
    trainer, processor = make_trainer(tmp_path, rft_params(engine=engine, lora=lora, steps=STEPS))
    for step in range(STEPS):
        trainer.step(step)
    batch = trainer.prompts(0)[0]
    answers = trainer.tools.rollout(trainer.engine.module, batch.prompts, trainer._uniforms(batch.positions))
    live = trainer.engine.finish()
    save_policy(tmp_path / "policy", live, processor)
    loaded, _ = load_policy(tmp_path / "policy")
    assert loaded.dtype == torch.bfloat16
    expected = scores_of(live, trainer, batch.prompts, answers)
    found = scores_of(loaded, trainer, batch.prompts, answers)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    asked = [trainer.tools.draw(position) for position in range(6)]
    answered = [evaluated(model, trainer, asked) for model in (live, loaded)]
    assert answered[0].answers.ids.tolist() == answered[1].answers.ids.tolist()
    torch.testing.assert_close(answered[1].mean, answered[0].mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(answered[1].drawn, answered[0].drawn, rtol=0, atol=1e-6)
    if lora is None:
        return
    trained, kept = changes(live), changes(loaded)
    assert trained and all(change.norm() > 0 for change in trained.values())
    assert all(torch.equal(trained[name], kept[name]) for name in trained)  # all of the change is kept, not 99 %


def test_folding_such_adapters_into_bf16_weights_would_lose_them(tmp_path: Path) -> None:
    """Why adapters are saved beside the weights."""
    engine = {"lr": 1e-6, "bf16": True, "zero_stage": 2}
    trainer, _ = make_trainer(tmp_path, rft_params(engine=engine, lora=LORA, steps=STEPS))
    for step in range(STEPS):
        trainer.step(step)
    live = trainer.engine.finish()
    trained = changes(live)
    with without_adapters(copy.deepcopy(live)) as plain:
        weights = {name: plain.get_submodule(name).weight for name in trained}
    along = whole = torch.zeros(())
    for name, change in trained.items():
        folded = weights[name] + change.to(weights[name].dtype)
        along = along + ((folded.float() - weights[name].float()) * change).sum()
        whole = whole + change.square().sum()
    assert along / whole < 0.3
