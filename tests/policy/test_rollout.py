"""Sampling: one exact distribution, shared with the scorer."""

import pytest
import torch
from tiny_policies import image_tokens_of, tiny_policy

from pose_rft.policy.hub import Base
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.packing import pack, score
from pose_rft.policy.processor import PoseProcessor
from pose_rft.policy.rollout import Answers, generate


def mixed_prompts(processor: PoseProcessor) -> list[list[int]]:
    return [
        processor.prompt_ids(processor.image_questions[0], True),
        processor.prompt_ids(processor.text_questions[1].format(caption="he stands with the left knee bent"), False),
        processor.prompt_ids(processor.image_questions[5], True),
    ]


def test_greedy_answers_equal_decoding_without_a_cache(base: Base) -> None:
    model, processor = tiny_policy(base)
    tokens = image_tokens_of(model, processor, 2)
    prompts = mixed_prompts(processor)
    answers = generate(model, prompts, tokens, n=2, max_new_tokens=7, temperature=0)
    for b, prompt in enumerate(prompts):
        image = None if b == 1 else tokens.select([b // 2])
        ids = list(prompt)
        for _ in range(7):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids]), image_tokens=image).logits[0, -1].argmax()))
            if ids[-1] == processor.eos_token_id:
                break
        for g in range(2):
            assert answers.answer(b, g) == ids[len(prompt) :]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_the_sampled_distribution_is_the_scored_one(base: Base, temperature: float) -> None:
    """Frequencies of 4,000 sampled two-token answers against exp(score)."""
    model, processor = tiny_policy(base)
    with torch.no_grad():
        model.llava.lm_head.weight *= 3  # a few likely tokens instead of a hundred
    prompt = mixed_prompts(processor)[1]
    n = 4000
    drawn = generate(model, [prompt] * 4, None, n // 4, 2, temperature, torch.Generator().manual_seed(0))
    found: dict[tuple[int, ...], int] = {}
    for b in range(4):
        for g in range(n // 4):
            answer = tuple(drawn.answer(b, g))
            found[answer] = found.get(answer, 0) + 1
    common = sorted(found, key=lambda answer: -found[answer])[:12]
    answers = Answers.from_lists([[list(answer) for answer in common]], processor.eos_token_id)
    with torch.no_grad():
        scores = score(model, pack([prompt], answers, model.config), None, temperature)
    expected = scores.log_probs[0].sum(-1).exp()
    for answer, p in zip(common, expected.tolist(), strict=True):
        deviation = (p * (1 - p) / n) ** 0.5
        assert abs(found[answer] / n - p) < 4.5 * deviation, (answer, found[answer] / n, p)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_scores_are_the_log_softmax_of_logits_over_temperature(base: Base, temperature: float) -> None:
    model, processor = tiny_policy(base)
    prompt = mixed_prompts(processor)[1]
    answers = generate(model, [prompt], None, 3, 6, temperature, torch.Generator().manual_seed(1))
    scores = score(model, pack([prompt], answers, model.config), None, temperature)
    for g in range(3):
        answer = answers.answer(0, g)
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / temperature, -1)[range(len(answer)), answer]
        assert torch.allclose(scores.log_probs[0, g, : len(answer)], expected, atol=1e-5)


def test_tokens_that_are_no_words_are_never_sampled_however_likely(base: Base) -> None:
    model, processor = tiny_policy(base)
    never = [processor.image_token_id, processor.pad_token_id, len(processor.tokenizer)]
    with torch.no_grad():
        model.llava.lm_head.weight[never] = 50 * model.llava.lm_head.weight.abs().mean()
        model.llava.model.language_model.norm.weight.fill_(1.0)
    answers = generate(model, mixed_prompts(processor)[1:2], None, 64, 8, 1.3, torch.Generator().manual_seed(0))
    assert not bool(torch.isin(answers.ids[answers.mask], torch.tensor(never)).any())


def test_the_same_generator_gives_the_same_answers_and_another_does_not(base: Base) -> None:
    model, processor = tiny_policy(base)
    tokens = image_tokens_of(model, processor, 2)
    first, again, other = (
        generate(model, mixed_prompts(processor), tokens, 4, 6, 1.0, torch.Generator().manual_seed(seed)).ids
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first[..., : other.shape[-1]], other[..., : first.shape[-1]])


def test_a_groups_greedy_answer_does_not_depend_on_its_neighbours(base: Base) -> None:
    model, processor = tiny_policy(base)
    tokens = image_tokens_of(model, processor, 2)
    prompts = mixed_prompts(processor)
    together = generate(model, prompts, tokens, 1, 6, 0)
    alone = generate(model, prompts[2:], tokens.select([1]), 1, 6, 0)
    assert together.answer(2, 0) == alone.answer(0, 0)


def test_generation_leaves_training_mode_as_it_was(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    model, processor = policy
    model.train()
    generate(model, mixed_prompts(processor)[1:2], None, 1, 2, 0)
    assert model.training and model.pose_head.training and not model.pose_encoder.training


def test_answers_end_at_their_first_end_token() -> None:
    end = 2
    answers = Answers.from_ids(torch.tensor([[[5, 2, 9, 2], [5, 6, 7, 8], [2, 2, 2, 2]]]), end)
    assert answers.lengths.tolist() == [[2, 4, 1]]
    assert answers.finished.tolist() == [[True, False, True]]
    assert answers.answer(0, 0) == [5, 2] and answers.answer(0, 1) == [5, 6, 7, 8]
    assert answers.ids[0, 0].tolist() == [5, 2, 2, 2]
    lists = Answers.from_lists([[[5, 2], [5, 6, 7, 8], [2], [5, 6]]], end)
    assert lists.lengths.tolist() == [[2, 4, 1, 2]] and lists.finished.tolist() == [[True, False, True, False]]
