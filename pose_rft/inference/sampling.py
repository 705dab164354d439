"""Samples answers: G per prompt, with the prompt read once and its keys and values never copied.

The G answers of a prompt grow side by side in one row: step t appends G tokens, each attending to the prompt and its
own answer. So a group's KV cache holds the prompt once, where the usual expansion holds it G times (for LLaVA-7B, 8
times 0.3 GB). The distribution is exact: no top-k, no top-p, and the scorer (`packing.py`) computes the same one.

Tokens are drawn by inverse transform sampling from uniform numbers in [0, 1) that the caller gives. So an answer
depends only on its prompt and its numbers, not on how prompts are split over batches or ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.lockstep import done_on_every_rank
from pose_rft.policy.model import PoseLlava


@dataclass(frozen=True, eq=False)
class Completions:
    """G answers to each of B prompts.

    ids: (B, G, R), padded with the end token. lengths: (B, G), tokens up to and including the first end token.
    finished: (B, G) bool, False where R tokens were not enough.
    """

    ids: Tensor
    lengths: Tensor
    finished: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, G, R) bool: tokens that belong to the answer; those after the first end token are padding."""
        return torch.arange(self.ids.shape[-1], device=self.ids.device) < self.lengths[..., None]

    def answer(self, prompt: int, candidate: int) -> list[int]:
        """The ids of one answer, with its end token if it has one."""
        return self.ids[prompt, candidate, : int(self.lengths[prompt, candidate])].tolist()

    @classmethod
    def from_ids(cls, ids: Tensor, end_token_id: int) -> "Completions":
        """Builds completions from raw tokens (B, G, R): an answer ends at its first end token."""
        is_end = ids == end_token_id
        finished = is_end.any(-1)
        lengths = torch.where(finished, is_end.int().argmax(-1) + 1, ids.shape[-1])
        inside = torch.arange(ids.shape[-1], device=ids.device) < lengths[..., None]
        return cls(ids.masked_fill(~inside, end_token_id), lengths, finished)

    @classmethod
    def from_lists(cls, answers: Sequence[Sequence[Sequence[int]]], end_token_id: int) -> "Completions":
        """Builds completions from B lists of G answers, with or without an end token."""
        longest = max(len(answer) for group in answers for answer in group)
        padded = [[[*answer, *[end_token_id] * (longest - len(answer))] for answer in group] for group in answers]
        lengths = torch.tensor([[len(answer) for answer in group] for group in answers])
        ended = torch.tensor([[end_token_id in answer for answer in group] for group in answers])
        whole = cls.from_ids(torch.tensor(padded), end_token_id)
        return cls(whole.ids, torch.minimum(whole.lengths, lengths), ended)


def next_token_probs(logits: Tensor, temperature: float) -> Tensor:
    """(..., V) logits → float32 probabilities at `temperature`."""
    return torch.softmax(logits.float() / temperature, -1)


def inverse_sample(probs: Tensor, uniform: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds `uniform`: (..., V), (...) in [0, 1) → (...).

    Sums are float64: in float32, rounding would cost rare tokens of a 32,000-token vocabulary part of their mass.
    """
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    place = uniform[..., None].double() * cumulative[..., -1:]
    first = torch.searchsorted(cumulative, place, right=True)[..., 0]
    return first.clamp(max=probs.shape[-1] - 1)  # NaN gives V, out of range; the loss check reports those samples


def _pick(logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
    """(B, G, V), (B, G) → (B, G)."""
    if uniform is None:
        return logits.argmax(-1)
    return inverse_sample(next_token_probs(logits, temperature), uniform)


@torch.no_grad()
def generate(
    model: PoseLlava,
    prompts: Sequence[Sequence[int] | Tensor],
    image_tokens: ImageTokens | None,
    n: int,
    max_new_tokens: int,
    temperature: float,
    uniforms: Tensor | None = None,
) -> Completions:
    """Answers of the current policy.

    Args:
        prompts: B lists of ids (`PoseProcessor.prompt_ids`), of any lengths, with or without `<image>`.
        image_tokens: of the prompts with an image, in order; None if no prompt has one.
        n: G, answers per prompt.
        max_new_tokens: R, counting the end token.
        temperature: 0 takes the likeliest token.
        uniforms: (B, G, R) in [0, 1), on the model's device: the source of all randomness; None if temperature is 0.
    """
    if (temperature > 0) != (uniforms is not None):
        raise ValueError("sampling needs uniform numbers, and greedy answers none")
    was_training = model.training
    model.eval()  # with dropout, the sampled distribution would differ from the scored one
    try:
        return _generate(model, prompts, image_tokens, n, max_new_tokens, temperature, uniforms)
    finally:
        model.train(was_training)


def _generate(
    model: PoseLlava,
    prompts: Sequence[Sequence[int] | Tensor],
    image_tokens: ImageTokens | None,
    n: int,
    max_new_tokens: int,
    temperature: float,
    uniforms: Tensor | None,
) -> Completions:
    device = model.device
    end = model.config.end_token_id
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    rows = torch.full((len(prompts), longest), end, device=device)
    for row, prompt in zip(rows, prompts, strict=True):  # left-padded: the last column predicts for every prompt
        row[longest - len(prompt) :] = torch.as_tensor(prompt, device=device)
    seen = torch.arange(longest, device=device) >= (longest - lengths)[:, None]  # (B, P)

    cache = DynamicCache(config=model.llava.model.language_model.config)
    out = model(
        rows,
        attention_mask=seen,
        position_ids=(seen.long().cumsum(-1) - 1).clamp_min(0),
        image_tokens=image_tokens,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits = out.logits.expand(-1, n, -1)  # (B, G, V)
    own = torch.eye(n, dtype=torch.bool, device=device).expand(len(prompts), 1, n, n)
    mask = seen[:, None, None].expand(-1, 1, n, -1)  # (B, 1, G, P)
    ended = torch.zeros(len(prompts), n, dtype=torch.bool, device=device)
    steps: list[Tensor] = []
    while True:
        tokens = _pick(logits, temperature, None if uniforms is None else uniforms[..., len(steps)])
        steps.append(tokens)
        ended |= tokens == end
        if len(steps) == max_new_tokens or done_on_every_rank(model, bool(ended.all())):
            return Completions.from_ids(torch.stack(steps, -1), end)
        mask = torch.cat([mask, own], -1)  # answer g sees the prompt and every token of answer g
        positions = (lengths + len(steps) - 1)[:, None].expand(-1, n)
        out = model(tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        logits = out.logits
