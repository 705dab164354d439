"""A packed group equals its separate rows: log-probabilities, states at `<POSE>`, and gradients."""

import pytest
import torch
from torch import Tensor

from pose_rft.inference.packing import Rows, Scores, pack, score, separate_rows
from pose_rft.inference.sampling import Completions
from pose_rft.policy.hub import Base
from pose_rft.policy.lora import add_lora
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import LoRAParams
from pose_rft.policy.processor import PoseProcessor
from tests.support.tiny_policies import image_tokens_of, tiny_policy

LORA = LoRAParams(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj", "down_proj"])


def some_answers(processor: PoseProcessor, groups: int) -> Completions:
    """Ragged: the template, one without end, a single token, two poses, a pose first, text."""
    pose, end = processor.pose_token_id, processor.eos_token_id
    template = list(processor.answer_ids)
    words = processor.sentence_ids("a red shirt yes")
    group = [template, template[:6], [end], [words[0], pose, pose, end], [pose, words[1], end], [*words, end]]
    return Completions.from_lists([group[b:] + group[:b] for b in range(groups)], end)


def prompts(processor: PoseProcessor, pattern: str) -> list[list[int]]:
    """`i` with image, `t` without; of different lengths."""
    captions = ["he stands", "both arms raised and the left knee bent", "a"]
    return [
        processor.prompt_ids(processor.text_questions[i].format(caption=captions[i % 3]), kind == "i")
        for i, kind in enumerate(pattern)
    ]


def both(model: PoseLlava, processor: PoseProcessor, pattern: str) -> tuple[tuple[Rows, Scores], tuple[Rows, Scores]]:
    tokens = image_tokens_of(model, processor, pattern.count("i"))
    asked, answers = prompts(processor, pattern), some_answers(processor, len(pattern))
    rows = [form(asked, answers, model.config) for form in (pack, separate_rows)]
    first, second = ((row, score(model, row, tokens, 0.8)) for row in rows)
    return first, second


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("pattern", ["i", "t", "it", "tti", "iii"])
def test_a_packed_group_scores_as_separate_rows(base: Base, pattern: str, lora: bool) -> None:
    model, processor = tiny_policy(base)
    if lora:
        add_lora(model, LORA)
        stir_lora(model)
    (packed_rows, packed), (plain_rows, plain) = both(model, processor, pattern)
    assert len(packed_rows.input_ids) == len(pattern) and len(plain_rows.input_ids) == 6 * len(pattern)
    assert packed_rows.input_ids.numel() < plain_rows.input_ids.numel() / 2
    assert torch.equal(packed.mask, plain.mask)
    assert torch.allclose(packed.log_probs, plain.log_probs, atol=1e-5)
    assert torch.allclose(packed.entropy, plain.entropy, atol=1e-5)
    assert torch.allclose(packed.hidden, plain.hidden, atol=1e-5)
    assert packed.has_pose[0].tolist() == [True, False, False, False, True, False]


def stir_lora(model: PoseLlava) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "pose_row" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def test_a_packed_group_has_the_gradients_of_separate_rows(base: Base) -> None:
    model, processor = tiny_policy(base)
    gradients: list[dict[str, Tensor]] = []
    for scores in (scored[1] for scored in both(model, processor, "it")):
        weights = torch.linspace(-1, 1, scores.log_probs.numel()).view_as(scores.log_probs)
        pose = model.pose_distribution(scores.hidden[scores.has_pose])
        model.zero_grad()
        ((scores.log_probs * weights).sum() + pose.log_prob(pose.mean.detach() + 0.1).sum() / 144).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    packed, plain = gradients
    assert packed.keys() == plain.keys() and any("fusion" in name for name in packed)
    for name in packed:
        assert torch.allclose(packed[name], plain[name], atol=1e-5 * max(1.0, float(plain[name].abs().max()))), name


def test_eager_attention_gives_the_same_scores_as_sdpa(base: Base) -> None:
    model, processor = tiny_policy(base)
    expected = both(model, processor, "it")[0][1]
    model.set_attn_implementation("eager")
    assert model.llava.model.language_model.config._attn_implementation == "eager"
    for _, scores in both(model, processor, "it"):
        assert torch.allclose(scores.log_probs, expected.log_probs, atol=1e-5)


def test_without_its_mask_a_packed_row_would_score_differently(base: Base) -> None:
    """The trap: transformers takes restarting positions without a mask for independent sequences."""
    model, processor = tiny_policy(base)
    rows = pack(prompts(processor, "t"), some_answers(processor, 1), model.config)
    layout = {"attention_mask": rows.attention_mask, "group": rows.group}
    right = model(rows.input_ids, position_ids=rows.position_ids, **layout).hidden_states
    wrong = model(rows.input_ids, position_ids=rows.position_ids).hidden_states
    assert not torch.allclose(right[:, -1], wrong[:, -1], atol=1e-2)


def test_what_follows_the_end_changes_no_score_and_no_gradient(base: Base) -> None:
    model, processor = tiny_policy(base)
    end, pose = processor.eos_token_id, processor.pose_token_id
    words = processor.sentence_ids("a red shirt")
    results = []
    for garbage in ([end, end], [pose, words[1]]):
        answers = Completions.from_ids(torch.tensor([[[*words, end, *garbage]]]), end)
        scores = score(model, pack(prompts(processor, "t"), answers, model.config), None)
        model.zero_grad()
        scores.log_probs.sum().backward()
        results.append((scores, model.llava.lm_head.weight.grad.clone()))
        assert not bool(scores.has_pose.any())  # a <POSE> behind the end is no pose
        assert scores.mask.sum() == len(words) + 1
    assert torch.equal(results[0][0].log_probs, results[1][0].log_probs)
    assert torch.equal(results[0][1], results[1][1])


def test_the_end_token_itself_is_scored_and_has_gradient(base: Base) -> None:
    model, processor = tiny_policy(base)
    answers = Completions.from_lists(
        [[[*processor.sentence_ids("yes"), processor.eos_token_id]]], processor.eos_token_id
    )
    scores = score(model, pack(prompts(processor, "t"), answers, model.config), None)
    scores.log_probs[0, 0, 1].backward()
    assert float(model.llava.lm_head.weight.grad[processor.eos_token_id].abs().sum()) > 0


def test_the_packed_hidden_state_is_the_one_before_pose_in_the_plain_dialogue(base: Base) -> None:
    model, processor = tiny_policy(base)
    tokens = image_tokens_of(model, processor, 1)
    question = processor.image_questions[0]
    encoded = processor.encode(question, processor.ANSWER, True)
    plain = model(encoded.input_ids[None], image_tokens=tokens).hidden_states[0, encoded.pose_position]
    answers = Completions.from_lists([[list(processor.answer_ids)] * 2], processor.eos_token_id)
    packed = score(model, pack([processor.prompt_ids(question, True)], answers, model.config), tokens)
    assert torch.allclose(packed.hidden[0, 1], plain, atol=1e-5)
