"""An ensemble of retrieval models as one reward model: the members do not share each other's random errors.

A policy that is rewarded by one model also exploits that model's errors: its recall under that model rises above that
of true poses. Members differ in their seed. Their embeddings, concatenated and divided by √M, have length 1, and their
cosine is the mean of the members' cosines, so an ensemble has the interface of a single model.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pose_rft.io import atomic
from pose_rft.retrieval.model import TextPoseModel, load_retrieval

MEMBERS = "members"  # subfolder of the first member's folder that holds the others


class Ensemble:
    """M models with one interface; frozen."""

    def __init__(self, members: Sequence[TextPoseModel]) -> None:
        self.members = tuple(members)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.members[0].device

    def to(self, device: torch.device) -> "Ensemble":
        """The same models on another device."""
        return Ensemble([member.to(device) for member in self.members])

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """(N, M·D) of length 1."""
        return self._joined([member.embed_text(texts) for member in self.members])

    def encode_pose(self, rotations: Tensor) -> Tensor:
        """(N, 24, 3, 3) → (N, M·D) of length 1; the caller's grad mode applies."""
        return self._joined([member.encode_pose(rotations) for member in self.members])

    def _joined(self, embedded: list[Tensor]) -> Tensor:
        return torch.cat(embedded, dim=-1) / len(self.members) ** 0.5


def save_ensemble(members: Sequence[TextPoseModel], folder: Path) -> None:
    """Writes the first member as a model that `load_retrieval` reads, the others below it; atomic."""
    first, *others = members
    with atomic.folder(folder) as unfinished:
        first.write(unfinished)
        for number, member in enumerate(others, start=1):
            place = unfinished / MEMBERS / str(number)
            place.mkdir(parents=True)
            member.write(place)


def load_ensemble(folder: Path) -> Ensemble:
    """Loads all members in a folder.

    Raises:
        PoseRftError: as `load_retrieval`, for any member.
    """
    others = folder / MEMBERS
    numbers = sorted(int(path.name) for path in others.glob("*") if path.name.isdigit())
    return Ensemble([load_retrieval(folder), *(load_retrieval(others / str(number)) for number in numbers)])
