"""Scores answers: their token log-probabilities and the states that predict `<POSE>`, with the prompt read once.

A group of G answers is one row: the prompt, then the answers one behind the other, each seeing the prompt and itself
(a block-causal mask) at the positions that follow the prompt. Equal to G separate rows (`separate_rows`, the plain
path, kept as the reference for tests), and about (P + R) · G / (P + R · G) times cheaper. Prefix sharing as in Prefix
Grouper (arXiv 2506.05433), with one dense mask because answers are short.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from pose_rft.policy.config import PoseLlavaConfig
from pose_rft.policy.fusion import ImageTokens
from pose_rft.policy.rollout import Answers


@dataclass(frozen=True, eq=False)
class Rows:
    """What the model reads (N rows of L tokens), and where in it the answers are predicted.

    input_ids, position_ids: (N, L). attention_mask: (N, 1, L, L) bool, or (N, L). The last token of an answer is not
    read, since nothing follows it.
    row, position: (B, G, R), the state that predicts token r of answer g; targets (B, G, R) is that token, and mask
    (B, G, R) bool says where there is one.
    pose: (B, G), which token of the answer is `<POSE>`; has_pose (B, G) bool: exactly one is.
    images: the image of each row that holds one, as an index into the groups' images; None = one row per group.
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

    def to(self, device: torch.device | str) -> "Rows":
        tensors = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "images"}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


@dataclass(frozen=True, eq=False)
class Scores:
    """log_probs, entropy (B, G, R): nats, float32, 0 outside `mask`; entropy has no gradient.

    hidden: (B, G, d), the state that predicts `<POSE>`; where `has_pose` is False, the prompt's last state.
    """

    log_probs: Tensor
    entropy: Tensor
    mask: Tensor
    hidden: Tensor
    has_pose: Tensor


def pack(prompts: Sequence[Sequence[int] | Tensor], answers: Answers, config: PoseLlavaConfig) -> Rows:
    """One row per group: prompt, answer 1, ..., answer G; right-padded.

    Args:
        prompts: B lists of ids, of any lengths. answers: G to each, of any lengths.
    """
    texts = [torch.as_tensor(prompt) for prompt in prompts]
    answers = _on_cpu(answers)
    ids, segments, positions, starts = [], [], [], torch.zeros_like(answers.lengths)
    for b, prompt in enumerate(texts):
        read = answers.lengths[b] - 1
        inner = torch.cat([answers.ids[b, g, :count] for g, count in enumerate(read.tolist())])
        starts[b] = len(prompt) + read.cumsum(0) - read
        own = torch.repeat_interleave(torch.arange(1, len(read) + 1), read)
        within = torch.arange(len(inner)) + len(prompt) - (starts[b] - len(prompt))[own - 1] if len(inner) else inner
        ids.append(torch.cat([prompt, inner]))
        segments.append(torch.cat([torch.zeros(len(prompt), dtype=torch.long), own]))
        positions.append(torch.cat([torch.arange(len(prompt)), within]))
    segment = _padded(segments, -1)
    behind = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
    mask = behind & ((segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None]))
    token = torch.arange(answers.ids.shape[-1])
    last = torch.tensor([len(prompt) - 1 for prompt in texts])[:, None, None]
    position = torch.where(token == 0, last, starts[..., None] + token - 1)
    row = torch.arange(len(texts))[:, None, None].expand_as(answers.ids)
    return _rows(ids, mask[:, None], positions, row, position, answers, config, None)


def separate_rows(prompts: Sequence[Sequence[int] | Tensor], answers: Answers, config: PoseLlavaConfig) -> Rows:
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
    positions = [torch.arange(len(sequence)) for sequence in ids]
    return _rows(ids, mask, positions, row, last + token, answers, config, images)


def _rows(
    ids: list[Tensor],
    attention_mask: Tensor,
    positions: list[Tensor],
    row: Tensor,
    position: Tensor,
    answers: Answers,
    config: PoseLlavaConfig,
    images: list[int] | None,
) -> Rows:
    is_pose = (answers.ids == config.pose_token_id) & answers.mask
    return Rows(
        input_ids=_padded(ids, config.end_token_id),
        attention_mask=attention_mask,
        position_ids=_padded(positions, 0),
        row=row,
        position=torch.where(answers.mask, position, position[..., :1]),
        targets=answers.ids,
        mask=answers.mask,
        pose=is_pose.int().argmax(-1),
        has_pose=is_pose.sum(-1) == 1,
        images=images,
    )


def _on_cpu(answers: Answers) -> Answers:
    return Answers(answers.ids.cpu(), answers.lengths.cpu(), answers.finished.cpu())


def _padded(sequences: list[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value)


def score(
    model: Callable[..., object], rows: Rows, image_tokens: ImageTokens | None, temperature: float = 1.0
) -> Scores:
    """One pass through the model, a `PoseLlava` or the engine around it.

    Args:
        image_tokens: of the groups whose prompt holds an image, in their order.
        temperature: the one that the answers were sampled at (> 0).
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
        has_pose=rows.has_pose,
    )
