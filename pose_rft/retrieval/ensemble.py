"""Several retrieval models that reward as one: what a single one likes by chance, the others do not.

A policy that is rewarded by one model learns that model's errors too: its recall by that model rises above that of true
poses. Members differ in their seed. Their embeddings side by side, divided by √M, have length 1 and as cosine the mean
of the members' cosines, so an ensemble is used as any one of them.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pose_rft.io import atomic
from pose_rft.retrieval.model import TextPoseModel, load_retrieval

MEMBERS = "members"  # folder of the others in that of the first


class Ensemble:
    """M models with one interface; frozen."""

    def __init__(self, members: Sequence[TextPoseModel]) -> None:
        self.members = tuple(members)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.members[0].device

    def to(self, device: torch.device) -> "Ensemble":
        """The same models on another device."""
        return Ensemble([member.to(device) for member in self.members])

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """(N, M·D) of length 1."""
        return self._joined([member.embed_text(texts) for member in self.members])

    def encode_pose(self, rotations: Tensor) -> Tensor:
        """(N, M·D) of length 1, of (N, 24, 3, 3); gradients as the caller's mode says."""
        return self._joined([member.encode_pose(rotations) for member in self.members])

    def _joined(self, embedded: list[Tensor]) -> Tensor:
        return torch.cat(embedded, dim=-1) / len(self.members) ** 0.5


def save_ensemble(members: Sequence[TextPoseModel], folder: Path) -> None:
    """Writes the first as a model of its own (`load_retrieval`), the others below it; whole or not at all."""
    first, *others = members
    with atomic.folder(folder) as unfinished:
        first.write(unfinished)
        for number, member in enumerate(others, start=1):
            place = unfinished / MEMBERS / str(number)
            place.mkdir(parents=True)
            member.write(place)


def load_ensemble(folder: Path) -> Ensemble:
    """All members that a folder holds.

    Raises:
        PoseRftError: as `load_retrieval`, of any member.
    """
    others = folder / MEMBERS
    numbers = sorted(int(path.name) for path in others.glob("*") if path.name.isdigit())
    return Ensemble([load_retrieval(folder), *(load_retrieval(others / str(number)) for number in numbers)])
