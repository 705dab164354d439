"""Attention for packed groups: one prompt, then G answers, each attending to the prompt and to itself.

It runs in two parts instead of under one dense mask. The prompt attends to itself causally, with the kernel for
ordinary rows. Each answer attends to the prompt's keys, which are never copied, and to its own, under one softmax. The
cost is linear in G: G R (P + R) scores, against (P + G R)² for a dense mask, most of which pair answers that must not
see each other. Prefix Grouper (arXiv 2506.05433) splits likewise, but repeats the prompt's keys for every answer.

It is registered with transformers as an attention implementation; all other rows get plain SDPA.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "sdpa_shared_prompt"

GroupColumns = tuple[int, int]
"""(P, G): a packed row is a right-padded prompt of P columns, then G answers with equally many columns each."""


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    group: GroupColumns | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Called by transformers: (B, H, L, D) queries and keys → (B, L, H, D); plain SDPA without `group`.

    Args:
        attention_mask: with `group`: (B, 1, 1, P) bool, False on the prompt's padding.
    """
    if group is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    assert attention_mask is not None
    if dropout:
        raise ValueError("packed rows are scored without attention dropout: ratios need one distribution")
    key, value = (repeat_kv(x, query.shape[1] // x.shape[1]) for x in (key, value))
    mixed = group_attention(query, key, value, attention_mask, group, scaling or query.shape[-1] ** -0.5)
    return mixed.transpose(1, 2).contiguous(), None


def group_attention(
    query: Tensor, key: Tensor, value: Tensor, prompt: Tensor, group: GroupColumns, scaling: float
) -> Tensor:
    """(B, H, L, D) queries, keys and values → (B, H, L, D). prompt: (B, 1, 1, P) bool, False on padding.

    Prompts are right-padded, so the causal mask hides padding from the prompt's tokens; the answers need `prompt`.
    """
    length, answers = group
    first = F.scaled_dot_product_attention(
        query[:, :, :length], key[:, :, :length], value[:, :, :length], is_causal=True, scale=scaling
    )
    if query.shape[2] == length:
        return first
    own_query, own_key, own_value = (x[:, :, length:].unflatten(2, (answers, -1)) for x in (query, key, value))
    own_query = own_query * scaling
    shared = (own_query.flatten(2, 3) @ key[:, :, :length].transpose(2, 3)).masked_fill(~prompt, float("-inf"))
    tokens = own_query.shape[3]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
    own = (own_query @ own_key.transpose(3, 4)).masked_fill(later, float("-inf"))
    scores = torch.cat([shared.unflatten(2, (answers, tokens)), own], -1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    to_prompt, to_own = weights.split([length, tokens], -1)
    mixed = to_prompt.flatten(2, 3) @ value[:, :, :length] + (to_own @ own_value).flatten(2, 3)
    return torch.cat([first, mixed], 2)


def dense_mask(prompt: Tensor, group: GroupColumns, columns: int) -> Tensor:
    """The same pattern as one dense mask (B, 1, L, L) bool, True = may attend, for other attention implementations.

    Args:
        prompt: (B, 1, 1, P) bool. columns: L.
    """
    length, answers = group
    place = torch.arange(columns, device=prompt.device)
    # 0 for the prompt, then 1 to G
    answer = torch.where(place < length, 0, 1 + (place - length) * answers // max(1, columns - length))
    behind = place[:, None] >= place
    known = F.pad(prompt, (0, columns - length), value=True)
    return known & (behind & ((answer == 0) | (answer[:, None] == answer)))[None, None]


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
