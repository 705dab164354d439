"""Sampling: one exact distribution, shared with the scorer."""

import pytest
import torch

from pose_rft.inference.packing import pack, score
from pose_rft.inference.sampling import Completions, generate, inverse_sample
from pose_rft.policy.hub import Base
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.processor import PoseProcessor
from tests.support.tiny_policies import image_tokens_of, tiny_policy


def uniforms(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


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
    drawn = generate(model, [prompt] * 4, None, n // 4, 2, temperature, uniforms(0, 4, n // 4, 2))
    found: dict[tuple[int, ...], int] = {}
    for b in range(4):
        for g in range(n // 4):
            answer = tuple(drawn.answer(b, g))
            found[answer] = found.get(answer, 0) + 1
    common = sorted(found, key=lambda answer: -found[answer])[:12]
    answers = Completions.from_lists([[list(answer) for answer in common]], processor.eos_token_id)
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
    answers = generate(model, [prompt], None, 3, 6, temperature, uniforms(1, 1, 3, 6))
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
    answers = generate(model, mixed_prompts(processor)[1:2], None, 64, 8, 1.3, uniforms(0, 1, 64, 8))
    assert not bool(torch.isin(answers.ids[answers.mask], torch.tensor(never)).any())


def test_the_same_numbers_give_the_same_answers_and_others_do_not(base: Base) -> None:
    model, processor = tiny_policy(base)
    tokens = image_tokens_of(model, processor, 2)
    first, again, other = (
        generate(model, mixed_prompts(processor), tokens, 4, 6, 1.0, uniforms(seed, 3, 4, 6)).ids for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first[..., : other.shape[-1]], other[..., : first.shape[-1]])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_groups_answers_do_not_depend_on_its_neighbours(base: Base, temperature: float) -> None:
    model, processor = tiny_policy(base)
    tokens = image_tokens_of(model, processor, 2)
    prompts = mixed_prompts(processor)
    numbers = uniforms(3, 3, 4, 6) if temperature else None
    together = generate(model, prompts, tokens, 4, 6, temperature, numbers)
    last = None if numbers is None else numbers[2:]
    alone = generate(model, prompts[2:], tokens.select([1]), 4, 6, temperature, last)
    assert [together.answer(2, g) for g in range(4)] == [alone.answer(0, g) for g in range(4)]


def test_an_answer_that_waits_for_other_ranks_stays_as_it_was(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ZeRO-3 ranks pass the model equally often, so one whose answers have ended goes on until all have."""
    model, processor = tiny_policy(base)
    with torch.no_grad():
        model.llava.lm_head.weight[processor.eos_token_id] *= 4
    prompts, numbers = mixed_prompts(processor)[1:2], uniforms(5, 1, 4, 12)
    asked: list[bool] = []
    alone = generate(model, prompts, None, 4, 12, 1.0, numbers)
    monkeypatch.setattr("pose_rft.inference.sampling.done_on_every_rank", lambda _, done: bool(asked.append(done)))
    waiting = generate(model, prompts, None, 4, 12, 1.0, numbers)
    assert alone.ids.shape[-1] < 12 and waiting.ids.shape[-1] == 12 and asked[-1]
    assert [alone.answer(0, g) for g in range(4)] == [waiting.answer(0, g) for g in range(4)]
    assert torch.equal(alone.finished, waiting.finished)


def test_a_token_is_read_off_the_distribution_function() -> None:
    probs = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    below_one = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    at = torch.tensor([0.0, 0.2, 0.25, 0.7, 0.75, float(below_one)])
    assert inverse_sample(probs.expand(6, -1), at).tolist() == [1, 1, 3, 3, 4, 4], "a token of probability 0 never"
    rounded = torch.full((1, 3), 0.3333)  # softmax sums to 1 only up to rounding
    assert inverse_sample(rounded, below_one[None]).tolist() == [2]


def test_generation_leaves_training_mode_as_it_was(policy: tuple[PoseLlava, PoseProcessor]) -> None:
    model, processor = policy
    model.train()
    generate(model, mixed_prompts(processor)[1:2], None, 1, 2, 0)
    assert model.training and model.pose_head.training and not model.pose_encoder.training


def test_answers_end_at_their_first_end_token() -> None:
    end = 2
    answers = Completions.from_ids(torch.tensor([[[5, 2, 9, 2], [5, 6, 7, 8], [2, 2, 2, 2]]]), end)
    assert answers.lengths.tolist() == [[2, 4, 1]]
    assert answers.finished.tolist() == [[True, False, True]]
    assert answers.answer(0, 0) == [5, 2] and answers.answer(0, 1) == [5, 6, 7, 8]
    assert answers.ids[0, 0].tolist() == [5, 2, 2, 2]
    lists = Completions.from_lists([[[5, 2], [5, 6, 7, 8], [2], [5, 6]]], end)
    assert lists.lengths.tolist() == [[2, 4, 1, 2]] and lists.finished.tolist() == [[True, False, True, False]]
