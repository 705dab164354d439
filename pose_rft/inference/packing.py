"""Scores answers: their token log-probabilities and the states that predict `<POSE>`, with the prompt read once.

A group of G answers is one row: the prompt, then the answers one after another. Each answer attends to the prompt and
itself, at the positions that follow the prompt (`shared_attention.py`). The result equals G separate rows
(`separate_rows`, the reference for tests), at a cost about (P + R) · G / (P + R · G) times lower.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pose_rft.inference.sampling import Completions
from pose_rft.policy.config import PoseLlavaConfig
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.shared_attention import GroupColumns


@dataclass(frozen=True, eq=False)
class Rows:
    """The model's input (N rows of L tokens) and the positions that predict the answers.

    input_ids, position_ids: (N, L). attention_mask: (N, 1, 1, P) bool for packed rows, whose `group` gives the layout
    of prompt and answers; (N, L) for plain ones. The last token of an answer is not an input: nothing follows it.
    row, position: (B, G, R), the state that predicts token r of answer g; targets (B, G, R) is that token; mask
    (B, G, R) bool is True where it exists.
    pose: (B, G), index of `<POSE>` in the answer; has_pose (B, G) bool: the answer has exactly one.
    images: for each row with an image, its index into the groups' images; None = one row per group.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    row: Tensor
    position: Tensor
    targets: Tensor
    mask: Tensor
    pose: Tensor
    has_pose: Tensor
    images: list[int] | None
    group: GroupColumns | None

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on another device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: x.to(device) for name, x in values.items() if isinstance(x, Tensor)}
        return Rows(**values)


@dataclass(frozen=True, eq=False)
class Scores:
    """log_probs, entropy (B, G, R): nats, float32, 0 outside `mask`; entropy has no gradient.

    hidden: (B, G, d), the state that predicts `<POSE>`; where `has_pose` is False, the prompt's last state.
    start: (B, G, 144), the pose that the head starts from.
    """

    log_probs: Tensor
    entropy: Tensor
    mask: Tensor
    hidden: Tensor
    start: Tensor
    has_pose: Tensor


def pack(prompts: Sequence[Sequence[int] | Tensor], answers: Completions, config: PoseLlavaConfig) -> Rows:
    """One row per group: the prompt, padded to the longest prompt, then answers 1 to G, padded to the longest answer.

    Args:
        prompts: B lists of token ids, of any lengths. answers: G per prompt, of any lengths.
    """
    texts = [torch.as_tensor(prompt) for prompt in prompts]
    answers = _on_cpu(answers)
    groups, candidates = answers.lengths.shape
    lengths = torch.tensor([len(prompt) for prompt in texts])
    longest, read = int(lengths.max()), int(answers.lengths.max()) - 1
    asked = _padded(texts, config.end_token_id)
    ids = torch.cat([asked, answers.ids[..., :read].flatten(1)], 1)
    behind = (lengths[:, None, None] + torch.arange(read)).expand(-1, candidates, -1)
    positions = torch.cat([torch.arange(longest).expand(groups, -1), behind.flatten(1)], 1)
    token = torch.arange(answers.ids.shape[-1])
    first = longest + torch.arange(candidates)[:, None] * read  # where each answer begins
    position = torch.where(token == 0, lengths[:, None, None] - 1, first + token - 1)
    row = torch.arange(groups)[:, None, None].expand_as(answers.ids)
    prompt = (torch.arange(longest) < lengths[:, None])[:, None, None]
    return _rows(ids, prompt, positions, row, position, answers, config, None, (longest, candidates))


def separate_rows(prompts: Sequence[Sequence[int] | Tensor], answers: Completions, config: PoseLlavaConfig) -> Rows:
    """One row per answer, each with its own copy of the prompt: the plain equivalent of `pack`."""
    texts = [torch.as_tensor(prompt) for prompt in prompts]
    answers = _on_cpu(answers)
    groups, candidates = answers.lengths.shape
    ids = [
        torch.cat([texts[b], answers.ids[b, g, : int(answers.lengths[b, g]) - 1]])
        for b in range(groups)
        for g in range(candidates)
    ]
    token = torch.arange(answers.ids.shape[-1])
    last = torch.tensor([len(prompt) - 1 for prompt in texts])[:, None, None]
    row = torch.arange(groups * candidates).view(groups, candidates, 1).expand_as(answers.ids)
    with_image = [b for b in range(groups) if bool((texts[b] == config.llava.image_token_index).any())]
    images = [i for i in range(len(with_image)) for _ in range(candidates)]
    length = torch.tensor([len(sequence) for sequence in ids])
    mask = torch.arange(int(length.max())) < length[:, None]
    padded = _padded(ids, config.end_token_id)
    positions = torch.arange(padded.shape[1]).expand_as(padded)
    return _rows(padded, mask, positions, row, last + token, answers, config, images, None)


def _rows(
    ids: Tensor,
    attention_mask: Tensor,
    positions: Tensor,
    row: Tensor,
    position: Tensor,
    answers: Completions,
    config: PoseLlavaConfig,
    images: list[int] | None,
    group: GroupColumns | None,
) -> Rows:
    is_pose = (answers.ids == config.pose_token_id) & answers.mask
    return Rows(
        input_ids=ids,
        attention_mask=attention_mask,
        position_ids=positions,
        row=row,
        position=torch.where(answers.mask, position, position[..., :1]),
        targets=answers.ids,
        mask=answers.mask,
        pose=is_pose.int().argmax(-1),
        has_pose=is_pose.sum(-1) == 1,
        images=images,
        group=group,
    )


def _on_cpu(answers: Completions) -> Completions:
    return Completions(answers.ids.cpu(), answers.lengths.cpu(), answers.finished.cpu())


def _padded(sequences: list[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value)


def score(
    model: Callable[..., object], rows: Rows, image_tokens: ImageTokens | None, temperature: float = 1.0
) -> Scores:
    """Scores the rows in one forward pass of the model, a `PoseLlava` or the engine around it.

    Args:
        image_tokens: of the groups whose prompt has an image, in order.
        temperature: the sampling temperature of the answers (> 0).
    """
    if image_tokens is not None and rows.images is not None:
        image_tokens = image_tokens.select(rows.images)
    predicts = torch.zeros_like(rows.input_ids, dtype=torch.bool)
    predicts[rows.row[rows.mask], rows.position[rows.mask]] = True
    out = model(
        rows.input_ids,
        attention_mask=rows.attention_mask,
        position_ids=rows.position_ids,
        image_tokens=image_tokens,
        logits_to_keep=predicts,
        group=rows.group,
    )
    logits = out.logits.float() / temperature  # type: ignore[attr-defined]  # (N, V), row by row
    which = (predicts.flatten().cumsum(0) - 1).view_as(predicts)[rows.row, rows.position]  # (B, G, R) → N
    normaliser = torch.logsumexp(logits, -1)
    log_probs = logits[which, rows.targets] - normaliser[which]
    with torch.no_grad():
        entropy = normaliser - (torch.softmax(logits, -1) * logits).sum(-1)
    at = rows.position.gather(-1, torch.where(rows.has_pose, rows.pose, 0)[..., None])[..., 0]
    return Scores(
        log_probs=log_probs.masked_fill(~rows.mask, 0.0),
        entropy=entropy[which].masked_fill(~rows.mask, 0.0),
        mask=rows.mask,
        hidden=out.hidden_states[rows.row[..., 0], at],  # type: ignore[attr-defined]
        start=out.pose_start[rows.row[..., 0]],  # type: ignore[attr-defined]
        has_pose=rows.has_pose,
    )
