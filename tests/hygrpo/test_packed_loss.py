"""One row per group, rows of their own, and activations computed twice: the same loss and the same gradients."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pose_rft.hygrpo.advantages import Advantages
from pose_rft.hygrpo.experience import Experience, hybrid_loss, pose_log_prob
from pose_rft.inference.passes import score_packed, score_separate
from pose_rft.inference.sampling import Completions
from pose_rft.inference.types import AnswerRewards, PoseRewards, Scores
from pose_rft.policy.pose_head import PoseDistribution
from tests.support.rft_fakes import LORA, Scripted, make_trainer, rft_params

MIXED = {"mixture": {"image_pose": {"coco": 0.5}, "text_pose": {"posescript": 0.5}}}
TEXTS = {"mixture": {"text_pose": {"posescript": 1.0}}}


def ragged(processor: Any) -> list[list[int]]:
    """The template, words without a pose, one token, and a pose that is cut off."""
    template, end = list(processor.answer_ids), processor.eos_token_id
    return [template, [*processor.sentence_ids("Yes ."), end], [end], template[:-2]]


def judged(folder: Any, **changes: Any) -> tuple[Any, Experience, Any]:
    """A policy that has moved away from its anchor, and what it is judged by: ratios are not 1, some are clipped."""
    seen: list[Experience] = []
    params = rft_params(group_size=4, epsilon_pose=0.05, **changes)
    trainer, processor = make_trainer(folder, params, after=lambda step, e: seen.extend(e))
    trainer.tools = replace(trainer.tools, rollout=Scripted(processor, ragged(processor)))
    trainer.step(0)
    model = copy.deepcopy(trainer.engine.module)  # without the engine's hooks
    return model.train(), seen[0], params


def loss_and_gradients(model: Any, score: Any, e: Experience, params: Any) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = hybrid_loss(score(model, e.prompts, e.answers, temperature=1.0), e, params, "hygrpo")
    loss.total.backward()
    assert loss.metrics["log_ratio_max"] > 0 and loss.metrics["pose/log_ratio_max"] > 0
    return loss.total.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("examples", [MIXED, TEXTS], ids=["pictures and texts", "no picture"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_packing_and_activation_checkpointing_change_neither_loss_nor_gradients(tmp_path, lora, examples):
    model, e, params = judged(tmp_path, lora=lora, examples=examples)
    loss, gradients = loss_and_gradients(model, score_separate, e, params)
    assert any("lora_" in name if lora else "embed_tokens" in name for name in gradients)
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        for score in (score_packed, score_separate):
            other_loss, others = loss_and_gradients(model, score, e, params)
            assert other_loss == pytest.approx(loss, abs=1e-5)
            assert others.keys() == gradients.keys()
            for name, expected in gradients.items():
                scale = max(1.0, float(expected.abs().max()))
                assert (others[name] - expected).abs().max() < 1e-5 * scale, name


def test_layers_that_keep_no_activations_still_give_the_first_adapters_their_gradient(tmp_path):
    """With frozen embeddings nothing asks for the gradient of a layer's input but the trained row of `<POSE>`."""
    model, e, params = judged(tmp_path, lora=LORA, examples=TEXTS)
    model.activation_checkpointing_enable({"use_reentrant": False})
    _, gradients = loss_and_gradients(model, score_packed, e, params)
    first = {name: g for name, g in gradients.items() if "layers.0." in name and "lora_" in name}
    assert first and all(float(g.abs().max()) > 0 for name, g in first.items() if "lora_B" in name)


@pytest.mark.parametrize("zero_stage", [0, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_the_engine_takes_the_same_steps_with_activation_checkpointing(tmp_path, lora, zero_stage):
    norms = []
    for on in (False, True):
        engine = {"lr": 1e-3, "zero_stage": zero_stage, "checkpoint_activations": on}
        trainer, _ = make_trainer(tmp_path / str(on), rft_params(engine=engine, lora=lora))
        layer = trainer.engine.module.llava.model.language_model.layers[0]
        assert layer.gradient_checkpointing == on
        trainer.engine.module.train()
        norms.append([trainer.step(step).values["grad_norm"] for step in range(2)])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


# --- the objective alone, in float64


@dataclass
class Case:
    scores: Scores
    experience: Experience
    leaves: list[Tensor]


LENGTHS = [[5, 2, 1], [3, 3, 2], [1, 4, 2], [2, 2, 2]]


def synthetic(per_joint: bool, rows: list[int], width: int) -> Case:
    """Groups `rows` of four fixed ones, answers padded to `width` tokens; group 2 has no pose, group 3 no hands."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    b, g, k, longest = 4, 3, 2, 5
    tokens, anchor, reference = (-normal(b, g, longest).abs() for _ in range(3))
    means, log_stds = normal(b, g, 144), 0.1 * normal(b, g, 144) - 2
    drawn = means[:, :, None] + 0.1 * normal(b, g, k, 144)
    frozen = means + 0.02 * normal(b, g, 144), log_stds + 0.02 * normal(b, g, 144)
    answer_advantages, pose_advantages = normal(b, g), normal(b, g * k)
    valid = torch.tensor([[True, False, True], [True, True, True], [False] * 3, [True, True, False]])
    joints = torch.ones(b, 24, dtype=torch.bool)
    joints[3, 22:] = False

    def cut(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x[rows], (0, max(0, width - longest)))[..., :width].clone()

    lengths = torch.tensor(LENGTHS)[rows]
    answers = Completions(
        torch.zeros(len(rows), g, width, dtype=torch.long), lengths, torch.ones_like(lengths, dtype=bool)
    )
    leaves = [x.requires_grad_() for x in (cut(tokens), means[rows].clone(), log_stds[rows].clone())]
    poses = PoseDistribution(leaves[1].flatten(0, 1), leaves[2].flatten(0, 1))
    held = PoseDistribution(frozen[0][rows].flatten(0, 1), frozen[1][rows].flatten(0, 1))
    nothing = torch.zeros(len(rows), g, width)
    scores = Scores(leaves[0], nothing, poses, valid[rows])
    informative = torch.ones(len(rows), dtype=torch.bool)
    experience = Experience(
        prompts=None,  # type: ignore[arg-type]
        answers=answers,
        valid=valid[rows],
        joint_mask=joints[rows],
        poses=drawn[rows],
        noise=((drawn - means[:, :, None]) / log_stds.exp()[:, :, None])[rows].detach(),
        token_anchor=cut(anchor),
        pose_anchor=pose_log_prob(held, drawn[rows], joints[rows], per_joint),
        reference=Scores(cut(reference), nothing, held, valid[rows]),
        answer_rewards=AnswerRewards(nothing, nothing, nothing),
        pose_rewards=PoseRewards(nothing, nothing),
        answer_advantages=Advantages(answer_advantages[rows], informative, torch.ones(len(rows))),
        pose_advantages=Advantages(pose_advantages[rows], informative, torch.ones(len(rows))),
    )
    return Case(scores, experience, leaves)


def gradients_of(case: Case, params: Any) -> tuple[Tensor, list[Tensor]]:
    total = hybrid_loss(case.scores, case.experience, params, "hygrpo").total
    assert total.dtype == torch.float64
    return total.detach(), list(torch.autograd.grad(total, case.leaves))


@pytest.mark.parametrize("level", ["token", "sequence", "sequence_mean"])
@pytest.mark.parametrize("form", ["sum", "sqrt", "mean", "per_joint"])
@pytest.mark.parametrize("pose_kl", ["sum", "mean"])
def test_groups_packed_together_have_the_loss_and_gradients_of_groups_alone(level, form, pose_kl):
    """In float64 to 1e-10, whatever stands beside a group and however far its answers are padded."""
    params = rft_params(group_size=3, ratio_level=level, pose_ratio=form, pose_kl=pose_kl)
    per_joint = form == "per_joint"
    total, together = gradients_of(synthetic(per_joint, [0, 1, 2, 3], 7), params)
    alone = [gradients_of(synthetic(per_joint, [i], max(LENGTHS[i])), params) for i in range(4)]
    assert (total - sum(value for value, _ in alone) / 4).abs() < 1e-10
    for i, (_, parts) in enumerate(alone):
        width = max(LENGTHS[i])
        assert (together[0][i, :, width:] == 0).all()
        assert (together[0][i, :, :width] - parts[0][0] / 4).abs().max() < 1e-10
        for whole, part in zip(together[1:], parts[1:], strict=True):
            assert (whole[i] - part[0] / 4).abs().max() < 1e-10


def test_a_group_that_prefers_nothing_is_still_pulled_to_the_reference():
    for beta in (0.0, 0.04):
        case = synthetic(False, [0, 1], 5)
        nothing = [
            torch.zeros_like(a.values) for a in (case.experience.answer_advantages, case.experience.pose_advantages)
        ]
        informative = case.experience.answer_advantages.informative
        answer, pose = (Advantages(values, informative, torch.zeros(2)) for values in nothing)
        even = replace(case.experience, answer_advantages=answer, pose_advantages=pose)
        params = rft_params(group_size=3, beta_text=beta, beta_pose=beta, beta_spread=beta)
        _, gradients = gradients_of(replace(case, experience=even), params)
        assert all(bool(g.any()) == (beta > 0) for g in gradients)
