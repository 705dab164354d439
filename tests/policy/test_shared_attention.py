"""Attention in two parts equals attention under one dense mask."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pose_rft.policy.shared_attention import GroupColumns, dense_mask, group_attention

HEADS, WIDTH = 3, 8


def states(group: GroupColumns, tokens: int, lengths: list[int]) -> tuple[list[Tensor], Tensor]:
    """Queries, keys, values in float64, and the mask of the prompts' columns."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(lengths), HEADS, group[0] + group[1] * tokens, WIDTH)
    found = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    prompt = (torch.arange(group[0]) < torch.tensor(lengths)[:, None])[:, None, None]
    return found, prompt


@pytest.mark.parametrize(("group", "tokens"), [((7, 1), 4), ((7, 5), 3), ((1, 2), 2), ((6, 4), 1), ((5, 3), 0)])
def test_two_parts_equal_one_dense_mask_with_their_gradients(group: GroupColumns, tokens: int) -> None:
    lengths = [group[0], max(1, group[0] - 3)]
    (query, key, value), prompt = states(group, tokens, lengths)
    columns = query.shape[2]
    dense = F.scaled_dot_product_attention(query, key, value, attn_mask=dense_mask(prompt, group, columns), scale=0.3)
    parts = group_attention(query, key, value, prompt, group, 0.3)
    real = F.pad(prompt[:, 0, 0], (0, columns - group[0]), value=True)  # what padding sees concerns nobody
    real = real[:, None, :, None].expand_as(parts)
    torch.testing.assert_close(parts[real], dense[real], rtol=0, atol=1e-12)
    weights = torch.linspace(-1, 1, parts.numel(), dtype=torch.float64).view_as(parts) * real
    for one, other in zip(
        torch.autograd.grad((parts * weights).sum(), (query, key, value)),
        torch.autograd.grad((dense * weights).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_an_answer_sees_its_prompt_and_its_own_past_and_nothing_else() -> None:
    group, tokens = (4, 3), 2
    (_, _, value), prompt = states(group, tokens, [4, 2])
    query = key = torch.zeros_like(value)  # all scores equal: what is seen is averaged
    mixed = group_attention(query, key, value, prompt, group, 1.0)
    second_of_answer_1 = value[:, :, [0, 1, 2, 3, 6, 7]].mean(2)
    torch.testing.assert_close(mixed[0, :, 7], second_of_answer_1[0])
    torch.testing.assert_close(mixed[1, :, 6], value[1][:, [0, 1, 6]].mean(1))
    torch.testing.assert_close(mixed[:, :, 1], value[:, :, :2].mean(2))
