"""Collates examples into the padded tensors of one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pose_rft.batches.examples import Example, ImageRef

IGNORED = -100  # label of a position without loss
CACHED_TEXTS = 200_000


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples, right-padded to T tokens; P of them have a pose, I an image.

    input_ids, attention_mask, labels: (B, T); labels are IGNORED outside the answer (which includes its end token).
    image_refs: the I crops in row order. image_rows: (I,) their rows.
    pose_rows, pose_positions: (P,) row and position of the hidden state that predicts `<POSE>`.
    pose6d: (P, 144). pose_mask: (P, 24) bool. joints: (P, 24, 3) metres, camera frame, pelvis at the origin.
    """

    examples: tuple[Example, ...]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    image_refs: tuple[ImageRef, ...]
    image_rows: Tensor
    pose_rows: Tensor
    pose_positions: Tensor
    pose6d: Tensor
    pose_mask: Tensor
    joints: Tensor

    @property
    def keys(self) -> list[str]:
        """The keys of the examples, in order."""
        return [example.key for example in self.examples]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return Batch(**values)


class Collator:
    """Tokenises and pads; caches the tokens of each (question, answer), since templates and captions recur."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._encode = lru_cache(CACHED_TEXTS)(self._encode_anew)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """
        Raises:
            PoseRftError: a question with its answer exceeds the model's context.
        """
        encoded = [self._encode(e.question, e.answer, e.image is not None) for e in examples]
        longest = max(len(ids) for ids, _, _ in encoded)
        shape = (len(examples), longest)
        input_ids = torch.full(shape, self.processor.pad_token_id, dtype=torch.long)
        attention = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED, dtype=torch.long)
        for row, (ids, answer, _) in enumerate(encoded):
            input_ids[row, : len(ids)] = ids
            attention[row, : len(ids)] = 1
            labels[row, : len(ids)] = torch.where(answer, ids, IGNORED)
        posed = [row for row, example in enumerate(examples) if example.pose6d is not None]
        pictured = [row for row, example in enumerate(examples) if example.image is not None]
        return Batch(
            examples=tuple(examples),
            input_ids=input_ids,
            attention_mask=attention,
            labels=labels,
            image_refs=tuple(examples[row].image for row in pictured),  # type: ignore[misc]
            image_rows=torch.tensor(pictured, dtype=torch.long),
            pose_rows=torch.tensor(posed, dtype=torch.long),
            pose_positions=torch.tensor([encoded[row][2] for row in posed], dtype=torch.long),
            pose6d=_stack([examples[row].pose6d for row in posed], (24, 6)).flatten(1),
            pose_mask=_stack([examples[row].pose_mask for row in posed], (24,)).bool(),
            joints=_stack([examples[row].joints for row in posed], (24, 3)),
        )

    def by_length(self, examples: Sequence[Example], pieces: int) -> list[list[Example]]:
        """Splits examples into `pieces` equal parts of similar length, so short questions get little padding."""
        ordered = sorted(examples, key=lambda e: len(self._encode(e.question, e.answer, e.image is not None)[0]))
        size = len(ordered) // pieces
        return [ordered[first : first + size] for first in range(0, len(ordered), size)]

    def _encode_anew(self, question: str, answer: str, has_image: bool) -> tuple[Tensor, Tensor, int | None]:
        encoded = self.processor.encode(question, answer, has_image)
        ids = torch.as_tensor(encoded.input_ids, dtype=torch.long)
        return ids, torch.as_tensor(encoded.labels_mask, dtype=torch.bool), encoded.pose_position


def _stack(tensors: list[Any], shape: tuple[int, ...]) -> Tensor:
    return torch.stack(tensors) if tensors else torch.zeros((0, *shape))
