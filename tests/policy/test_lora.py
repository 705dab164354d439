"""Adapters, the row of `<POSE>`, and the reference that needs no second model."""

import copy
from pathlib import Path

import pytest
import torch
from tiny_policies import image_tokens_of, tiny_policy

from pose_rft.policy.hub import Base
from pose_rft.policy.lora import add_lora, merge_lora, trainable_parameters
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.packing import Scores, pack, score
from pose_rft.policy.params import LoRAParams
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.policy.processor import PoseProcessor
from pose_rft.policy.reference import ReferencePolicy
from pose_rft.policy.rollout import Answers

LORA = LoRAParams(rank=4, alpha=8, dropout=0.1, targets=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"])


def scored(model: PoseLlava, processor: PoseProcessor) -> tuple[Scores, PoseDistribution]:
    tokens = image_tokens_of(model, processor, 1)
    prompts = [
        processor.prompt_ids(processor.image_questions[0], True),
        processor.prompt_ids(processor.text_questions[0].format(caption="he"), False),
    ]
    answers = Answers.from_lists([[list(processor.answer_ids)] * 2] * 2, processor.eos_token_id)
    scores = score(model, pack(prompts, answers, model.config), tokens)
    return scores, model.pose_distribution(scores.hidden.flatten(0, 1))


def train_a_little(model: PoseLlava, processor: PoseProcessor, mode: str, steps: int = 3) -> list[torch.nn.Parameter]:
    trained = trainable_parameters(model, mode)  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(trained, 1e-2)
    model.train()
    for _ in range(steps):
        scores, pose = scored(model, processor)
        (pose.log_prob(torch.zeros(4, 144)).sum() / 144 + scores.log_probs.sum()).backward()
        assert all(parameter.grad is not None for parameter in trained)
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    return trained


def test_fresh_adapters_change_nothing(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    model, processor = policy
    before = scored(model, processor)
    add_lora(model, LORA)
    after = scored(model.eval(), processor)
    assert torch.equal(before[0].log_probs, after[0].log_probs) and torch.equal(before[1].mean, after[1].mean)


def test_lora_trains_adapters_projectors_head_and_the_row_of_pose_and_nothing_else(
    policy: tuple[PoseLlava, PoseProcessor],
) -> None:
    model, processor = policy
    add_lora(model, LORA)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train_a_little(model, processor, "lora")
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    groups = ("lora_", "fusion.", "pose_head.", "multi_modal_projector.", "pose_row.")
    assert all(any(group in name for group in groups) for name in changed), changed
    assert all(any(group in name for name in changed) for group in groups), changed
    assert sum(parameter.numel() for parameter in model.pose_row.parameters()) == 2 * 32


def test_full_fine_tuning_trains_the_language_model_too(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    model, processor = policy
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train_a_little(model, processor, "full")
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert all("vision_tower" in name or name.startswith("pose_encoder.") for name in unchanged), unchanged


@pytest.mark.parametrize(("fusion", "unused"), [("channel", "multi_modal_projector"), ("clip_only", "none")])
def test_a_projector_that_the_fusion_does_not_use_is_not_trained(base: Base, fusion: str, unused: str) -> None:
    model, processor = tiny_policy(base, fusion=fusion)
    trainable_parameters(model, "full")
    assert not any(p.requires_grad for name, p in model.named_parameters() if unused in name)
    train_a_little(model, processor, "full", steps=1)


def test_mode_and_adapters_must_agree(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    model, _ = policy
    with pytest.raises(ValueError, match="no adapters"):
        trainable_parameters(model, "lora")
    add_lora(model, LORA)
    with pytest.raises(ValueError, match="LoRA adapters"):
        trainable_parameters(model, "full")
    with pytest.raises(ValueError, match="already"):
        add_lora(model, LORA)


def test_merged_adapters_answer_as_before_and_leave_whole_weights(
    policy: tuple[PoseLlava, PoseProcessor], tmp_path: Path
) -> None:
    model, processor = policy
    names = set(model.state_dict())
    add_lora(model, LORA)
    train_a_little(model, processor, "lora")
    with pytest.raises(ValueError, match="merge_lora"):
        model.save_pretrained(tmp_path)
    before = scored(model, processor)
    merge_lora(model)
    after = scored(model, processor)
    assert torch.allclose(before[0].log_probs, after[0].log_probs, atol=1e-4)
    assert torch.allclose(before[1].mean, after[1].mean, atol=1e-4)
    assert set(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    loaded = PoseLlava.from_pretrained(tmp_path).eval()
    assert torch.allclose(scored(loaded, processor)[0].log_probs, after[0].log_probs, atol=1e-5)


def test_merging_without_adapters_changes_nothing(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    model, processor = policy
    before = scored(model, processor)
    assert torch.equal(before[0].log_probs, scored(merge_lora(model), processor)[0].log_probs)


# --- reference


@pytest.mark.parametrize("lora", [False, True])
def test_kl_to_the_reference_is_exactly_zero_at_the_first_step(base: Base, lora: bool) -> None:
    model, processor = tiny_policy(base)
    if lora:
        add_lora(model, LORA.model_copy(update={"dropout": 0.0}))
    reference = ReferencePolicy(model)
    trainable_parameters(model, "lora" if lora else "full")
    model.train()
    with reference.use(model) as frozen:
        old, old_pose = scored(frozen, processor)
    new, pose = scored(model, processor)
    assert torch.equal(pose.kl(old_pose), torch.zeros(4))
    assert torch.equal(new.log_probs, old.log_probs)
    assert not old.log_probs.requires_grad and new.log_probs.requires_grad


@pytest.mark.parametrize("lora", [False, True])
def test_kl_is_zero_also_where_an_engine_casts_weights_and_keeps_buffers(base: Base, lora: bool) -> None:
    model, processor = tiny_policy(base)
    mean = torch.randn(144, generator=torch.Generator().manual_seed(5))  # not exact in bfloat16
    model.set_mean_pose(mean)
    if lora:
        add_lora(model, LORA.model_copy(update={"dropout": 0.0}))
    reference = ReferencePolicy(model)
    torch.nn.Module.to(model, torch.bfloat16)
    model.pose_head.mean_pose = mean
    with reference.use(model) as frozen:
        _, old_pose = scored(frozen, processor)
    _, pose = scored(model, processor)
    assert torch.equal(pose.kl(old_pose), torch.zeros(4))


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_stays_the_start_while_the_policy_moves(base: Base, lora: bool) -> None:
    model, processor = tiny_policy(base)
    start = copy.deepcopy(model)
    if lora:
        add_lora(model, LORA)
    reference = ReferencePolicy(model)
    train_a_little(model, processor, "lora" if lora else "full")
    moved = scored(model, processor)
    with reference.use(model) as frozen:
        kept = scored(frozen, processor)
        assert (frozen is model) == lora  # with LoRA there is no second language model
    expected = scored(start, processor)
    assert torch.allclose(kept[0].log_probs, expected[0].log_probs, atol=1e-5)
    assert torch.allclose(kept[1].mean, expected[1].mean, atol=1e-5)
    assert float(moved[1].kl(kept[1]).min()) > 1e-3
    again = scored(model, processor)  # the block gave everything back
    assert torch.equal(again[0].log_probs, moved[0].log_probs)


def test_the_reference_gives_back_mode_gradients_and_parameters(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    model, _ = policy
    add_lora(model, LORA)
    reference = ReferencePolicy(model)
    trained = trainable_parameters(model, "lora")
    model.train()
    with pytest.raises(RuntimeError, match="inside"), reference.use(model) as frozen:
        assert not torch.is_grad_enabled() and not frozen.training
        raise RuntimeError("inside")
    assert model.training and model.pose_head.training and torch.is_grad_enabled()
    live = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(live) == len(trained) and all(a is b for a, b in zip(live, trained, strict=True))
