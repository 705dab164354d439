"""Adapters, the row of `<POSE>`, and the reference that needs no second model."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pose_rft.errors import PoseRftError
from pose_rft.hygrpo.reference import ReferencePolicy
from pose_rft.inference.packing import Scores, pack, score
from pose_rft.inference.sampling import Completions
from pose_rft.policy.hub import Base, load_policy, save_policy
from pose_rft.policy.lora import ADAPTERS, add_lora, trainable_parameters
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import LoRAParams
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.policy.processor import PoseProcessor
from tests.support.tiny_policies import image_tokens_of, tiny_policy

LORA = LoRAParams(rank=4, alpha=8, dropout=0.1, targets=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"])


def scored(model: PoseLlava, processor: PoseProcessor) -> tuple[Scores, PoseDistribution]:
    tokens = image_tokens_of(model, processor, 1)
    prompts = [
        processor.prompt_ids(processor.image_questions[0], True),
        processor.prompt_ids(processor.text_questions[0].format(caption="he"), False),
    ]
    answers = Completions.from_lists([[list(processor.answer_ids)] * 2] * 2, processor.eos_token_id)
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


def test_lora_mode_needs_adapters(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    with pytest.raises(ValueError, match="no adapters"):
        trainable_parameters(policy[0], "lora")


# --- saving


def same(a: tuple[Scores, PoseDistribution], b: tuple[Scores, PoseDistribution]) -> bool:
    return torch.equal(a[0].log_probs, b[0].log_probs) and torch.equal(a[1].mean, b[1].mean)


def saved_and_loaded(model: PoseLlava, processor: PoseProcessor, folder: Path) -> PoseLlava:
    save_policy(folder, model, processor)
    return load_policy(folder)[0]


def test_a_folder_holds_plain_weights_and_the_adapters_beside_them(
    policy: tuple[PoseLlava, PoseProcessor], tmp_path: Path
) -> None:
    model, processor = policy
    save_policy(tmp_path / "plain", model, processor)
    add_lora(model, LORA)
    train_a_little(model, processor, "lora")
    before = scored(model, processor)
    save_policy(tmp_path, model, processor)
    names = set(load_file(tmp_path / "plain" / "model.safetensors"))
    assert set(load_file(tmp_path / "model.safetensors")) == names
    adapters = load_file(tmp_path / ADAPTERS)
    assert {value.dtype for value in adapters.values()} == {torch.float32}
    assert all("lora_" in name or name.startswith("pose_row.") for name in adapters)
    assert same(before, scored(model, processor))  # saving took nothing away
    for loaded in (load_policy(tmp_path)[0], PoseLlava.from_pretrained(tmp_path).eval()):
        assert same(before, scored(loaded, processor))


@pytest.mark.parametrize("second", ["lora", "full"])
def test_a_second_training_starts_from_exactly_the_first_ones_policy_and_survives_saving(
    base: Base, tmp_path: Path, second: str
) -> None:
    model, processor = tiny_policy(base)
    add_lora(model, LORA)
    train_a_little(model, processor, "lora")
    start = scored(model, processor)
    model = saved_and_loaded(model, processor, tmp_path / "sft")
    first = load_file(tmp_path / "sft" / ADAPTERS)
    if second == "lora":
        add_lora(model, LoRAParams(rank=2, alpha=2, dropout=0.0, targets=["q_proj", "down_proj"]))
    trainable_parameters(model, second)  # type: ignore[arg-type]
    reference = ReferencePolicy(model)
    assert same(start, scored(model.train(), processor))  # the dropout of the first training is over
    train_a_little(model, processor, second)
    moved = scored(model, processor)
    assert not torch.allclose(moved[1].mean, start[1].mean, atol=1e-3)
    with reference.use(model) as frozen:
        assert same(start, scored(frozen, processor))
    loaded = saved_and_loaded(model, processor, tmp_path / "rft")
    assert same(moved, scored(loaded, processor))
    assert len(loaded.adapters) == (2 if second == "lora" else 1)
    kept = load_file(tmp_path / "rft" / ADAPTERS)
    assert all(torch.equal(kept[name], value) for name, value in first.items() if "lora_" in name)


def test_adapters_that_are_missing_cut_or_of_other_sizes_are_one_sentence(
    policy: tuple[PoseLlava, PoseProcessor], tmp_path: Path
) -> None:
    model, processor = policy
    add_lora(model, LORA)
    save_policy(tmp_path, model, processor)
    content = load_file(tmp_path / ADAPTERS)
    save_file({name: value[:1] for name, value in content.items()}, tmp_path / ADAPTERS)
    with pytest.raises(PoseRftError, match=r"adapters\.safetensors does not fit.*lora_A"):
        load_policy(tmp_path)
    (tmp_path / ADAPTERS).write_bytes((tmp_path / ADAPTERS).read_bytes()[:-1])
    with pytest.raises(PoseRftError, match="cut or damaged"):
        load_policy(tmp_path)
    (tmp_path / ADAPTERS).unlink()
    with pytest.raises(PoseRftError, match="copy it there too"):
        load_policy(tmp_path)


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
