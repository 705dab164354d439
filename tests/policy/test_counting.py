"""Counts of a policy: equal to what is really built, and to what torch counts while it runs."""

from itertools import pairwise

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pose_rft.cost.plan import preset_path
from pose_rft.inference.packing import pack, score
from pose_rft.inference.sampling import Completions, generate
from pose_rft.params import load
from pose_rft.policy.architectures import LLAVA, planned_config
from pose_rft.policy.counting import Count, Group, PolicyCosts, skeleton
from pose_rft.policy.hub import Base
from pose_rft.policy.lora import add_lora, trainable_parameters
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import BaseModelParams, LoRAParams, PolicyParams, PoseEncoderParams
from pose_rft.policy.processor import PoseProcessor
from tests.support.tiny_policies import image_tokens_of, tiny_policy

LORA = LoRAParams(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj", "down_proj"])
G, R = 4, 8


def prepared(base: Base, lora: LoRAParams | None, **changes: object) -> tuple[PoseLlava, PoseProcessor]:
    model, processor = tiny_policy(base, **changes)  # type: ignore[arg-type]
    if lora is not None:
        add_lora(model, lora)
    trainable_parameters(model, "full" if lora is None else "lora")
    return model, processor


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("fusion", ["add", "concat", "channel", "clip_only"])
def test_parameters_equal_those_of_the_model_that_is_really_built(
    base: Base, fusion: str, lora: LoRAParams | None
) -> None:
    model, _ = prepared(base, lora, fusion=fusion)
    costs = PolicyCosts(model.config, lora)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert costs.total == Count(sum(p.numel() for p in model.parameters()), trained)
    tower = sum(p.numel() for p in model.llava.model.vision_tower.parameters())
    assert costs.parameters["CLIP tower"] == Count(tower, 0)
    assert ("pose encoder" in costs.parameters) == (fusion != "clip_only")
    assert ("adapters" in costs.parameters) == (lora is not None)
    if lora is None:
        assert costs.parameters["language model"].trained == costs.parameters["language model"].total
    else:
        assert costs.parameters["language model"].trained == 0 < costs.parameters["adapters"].trained


@pytest.mark.parametrize("changes", [{"covariance": "low_rank"}, {"head": "point"}])
def test_parameters_follow_the_form_of_the_pose_head(base: Base, changes: dict[str, str]) -> None:
    model, _ = prepared(base, None, **changes)
    built = sum(p.numel() for p in model.pose_head.parameters())
    assert PolicyCosts(model.config).parameters["pose head"] == Count(built, built)


def test_the_papers_model_has_the_published_number_of_parameters() -> None:
    path = preset_path("paper")
    sections = (("base_model", BaseModelParams), ("pose_encoder", PoseEncoderParams), ("policy", PolicyParams))
    config = planned_config(*(load(name, kind, path) for name, kind in sections), 336, 256, rows=0)  # type: ignore[arg-type]
    counts = PolicyCosts(config, LORA).parameters
    llama = 6_738_415_616  # Llama-2-7B, with 32,000 rows in both vocabulary matrices
    assert counts["language model"] == Count(llama + 64 * 2 * 4096, 0)
    assert counts["CLIP tower"].total == 303_507_456  # CLIP ViT-L/14 at 336 px, without its projection
    assert set(LLAVA) == {"llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"}


def test_a_skeleton_has_no_numbers(base: Base) -> None:
    model, _ = prepared(base, LORA)
    assert all(p.device.type == "meta" for p in skeleton(model.config, LORA).parameters())


def counted(work: object) -> float:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()  # type: ignore[operator]
    return float(counter.get_total_flops())


def answers_of(model: PoseLlava, groups: int) -> Completions:
    ids = torch.randint(5, 40, (groups, G, R), generator=torch.Generator().manual_seed(0))
    ids[ids == model.config.pose_token_id] = 6
    return Completions.from_ids(ids, model.config.end_token_id)


def prompts_of(processor: PoseProcessor, picture: bool, groups: int) -> list[list[int]]:
    return [processor.prompt_ids(processor.image_questions[i], picture) for i in range(groups)]


@pytest.mark.parametrize("picture", [True, False])
@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("fusion", ["add", "concat", "channel", "clip_only"])
def test_operations_of_a_packed_pass_equal_those_that_torch_counts(
    base: Base, fusion: str, lora: LoRAParams | None, picture: bool
) -> None:
    model, processor = prepared(base, lora, fusion=fusion)
    prompts, answers = prompts_of(processor, picture, 1), answers_of(model, 1)
    rows = pack(prompts, answers, model.config)
    tokens = image_tokens_of(model, processor, int(picture))

    def forward() -> torch.Tensor:
        scores = score(model, rows, tokens)
        poses = model.pose_distribution(scores.hidden.flatten(0, 1))
        return scores.log_probs.sum() + poses.mean.sum() + poses.std().sum()

    costs = PolicyCosts(model.config, lora).scoring(Group(len(prompts[0]), (R,) * G, picture))
    assert counted(lambda: forward()) == pytest.approx(costs.forward, rel=0.02)
    assert counted(lambda: forward().backward()) == pytest.approx(costs.total, rel=0.02)


def test_operations_of_a_rollout_equal_those_that_torch_counts(base: Base) -> None:
    model, processor = prepared(base, None)
    prompts, tokens = prompts_of(processor, True, 1), image_tokens_of(model, processor, 1)
    model.config.suppressed_token_ids = [*(model.config.suppressed_token_ids or []), model.config.end_token_id]
    uniforms = torch.rand(1, G, R, generator=torch.Generator().manual_seed(1))
    found = counted(lambda: generate(model, prompts, tokens, G, R, 1.0, uniforms))
    expected = PolicyCosts(model.config).rollout(Group(len(prompts[0]), (R,) * G, True))
    # Answers lie side by side in one row: the kernel also multiplies pairs that the mask then takes out.
    assert expected <= found * 1.01 and found == pytest.approx(expected, rel=0.05)


def test_operations_of_the_encoders_equal_those_that_torch_counts(base: Base) -> None:
    model, processor = prepared(base, None)
    found = counted(lambda: image_tokens_of(model, processor, 2))
    assert found == pytest.approx(2 * PolicyCosts(model.config).encoding, rel=0.01)


def test_a_step_adds_up_its_groups_and_updates(base: Base) -> None:
    model, _ = prepared(base, None)
    costs = PolicyCosts(model.config)
    one, two = Group(20, (5, 9), True), Group(30, (5, 5), False)
    first, second, both = costs.rft_step([one]), costs.rft_step([two]), costs.rft_step([one, two])
    assert both.total == pytest.approx(first.total + second.total)
    assert first.encode > 0 == second.encode
    assert costs.rft_step([one], encode=False).encode == 0
    assert costs.rft_step([one], updates=3).update == pytest.approx(3 * first.update)
    assert first.reference == pytest.approx(costs.scoring(one).forward), "in full fine-tuning both are one model"


def test_a_prompt_counts_once_in_unique_tokens_and_for_each_answer_in_logical_ones() -> None:
    group = Group(601, (12,) * 8, True)
    assert (group.unique, group.logical) == (601 + 96, 8 * 613)


def test_zero_stages_shard_the_optimiser_then_gradients_then_weights(base: Base) -> None:
    model, _ = prepared(base, LORA)
    costs = PolicyCosts(model.config, LORA)
    total, trained = costs.total
    alone = costs.states(0, 1, bf16=True)
    assert (alone["weights"], alone["gradients"], alone["optimiser"]) == (2 * total, 4 * trained, 12 * trained)
    stages = [costs.states(stage, 4, bf16=True) for stage in range(4)]
    for stage, sharded in ((1, "optimiser"), (2, "gradients"), (3, "weights")):
        assert stages[stage][sharded] == stages[stage - 1][sharded] / 4
    assert all(sum(a.values()) > sum(b.values()) for a, b in pairwise(stages))
    full = PolicyCosts(model.config)
    assert full.states(0, 1, bf16=True)["reference"] == 2 * full.total.total, "a frozen copy of the whole model"
    assert 0 < alone["reference"] < 2 * total


@pytest.mark.parametrize("lora", [None, LORA])
def test_activations_equal_what_a_real_pass_keeps(base: Base, lora: LoRAParams | None) -> None:
    model, processor = prepared(base, lora)
    model.train()
    prompts, answers = prompts_of(processor, False, 1), answers_of(model, 1)
    rows = pack(prompts, answers, model.config)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        score(model, rows, None)
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    found = sum(storage.nbytes() for storage in kept.values())
    costs = PolicyCosts(model.config, lora)
    plain, saved = (costs.activations(1, len(prompts[0]), G, R, False, flag) for flag in (False, True))
    assert plain == pytest.approx(found, rel=0.15)
    assert saved < plain
    assert costs.activations(3, len(prompts[0]), G, R, False, False) == pytest.approx(3 * plain, rel=0.05)
