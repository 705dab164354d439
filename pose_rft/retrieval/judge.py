"""The judge's two encoders. They share nothing with the reward model: other inputs, other layers, another seed.

Text: learned embeddings of the words in the training captions, read by a bidirectional GRU.
Pose: 6D rotations and joint positions from the kinematic chain, through a residual network.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import matrix_to_sixd

BODY_JOINTS = 22  # the hands are not labelled in SMPL-H sources
PADDING, UNKNOWN = 0, 1
FEWEST_USES = 2  # a word seen once teaches nothing and counts as unknown
_WORD = re.compile(r"[a-z']+|[0-9]+|[.,;]")


class Vocabulary:
    """Maps words to numbers; 0 is padding, 1 any unknown word."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._number = {word: i for i, word in enumerate(self.words, start=2)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """Builds a vocabulary of the words that occur at least `FEWEST_USES` times in `texts`."""
        uses = Counter(word for text in texts for word in split_words(text))
        return cls(sorted(word for word, count in uses.items() if count >= FEWEST_USES))

    def __len__(self) -> int:
        return len(self.words) + 2

    def numbers(self, text: str) -> Tensor:
        """The numbers of the words of a text, (T,) int64, T ≥ 1."""
        return torch.tensor([self._number.get(word, UNKNOWN) for word in split_words(text)] or [UNKNOWN])


def split_words(text: str) -> list[str]:
    """Lower-case words, and the punctuation that separates clauses."""
    return _WORD.findall(text.lower())


class WordTextEncoder(nn.Module):
    """(B, T) word numbers with a (B, T) bool mask → (B, latent) of length 1."""

    def __init__(self, words: int, word_width: int, recurrent_width: int, latent: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, word_width, padding_idx=PADDING)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = nn.GRU(word_width, recurrent_width, batch_first=True, bidirectional=True)
        self.attention = nn.Linear(2 * recurrent_width, 1)
        self.out = nn.Linear(2 * recurrent_width, latent)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(words))
        packed = nn.utils.rnn.pack_padded_sequence(embedded, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.recurrent(packed)[0], batch_first=True, total_length=words.shape[1]
        )
        weights = self.attention(states).masked_fill(~mask[..., None], -torch.inf).softmax(dim=1)
        return nn.functional.normalize(self.out(self.dropout((weights * states).sum(1))), dim=-1)


class ResidualPoseEncoder(nn.Module):
    """(N, 24, 3, 3) local rotations, AMASS frame without heading → (N, latent) of length 1.

    rest_joints: (24, 3) of the body model, metres; kept with the weights.
    """

    rest_joints: Tensor

    def __init__(self, rest_joints: Tensor, width: int, latent: int, dropout: float, blocks: int = 2) -> None:
        super().__init__()
        self.register_buffer("rest_joints", rest_joints.float().clone())
        self.inward = nn.Linear(BODY_JOINTS * (6 + 3), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in range(blocks)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latent))

    def forward(self, rotations: Tensor) -> Tensor:
        sixd = matrix_to_sixd(rotations[:, :BODY_JOINTS]).flatten(1)
        places = joint_positions(rotations, self.rest_joints)[:, :BODY_JOINTS].flatten(1)
        hidden = self.inward(torch.cat((sixd, places), dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return nn.functional.normalize(self.out(hidden), dim=-1)


def joint_positions(rotations: Tensor, rest_joints: Tensor) -> Tensor:
    """(N, 24, 3) metres relative to the pelvis, by forward kinematics from (24, 3) rest joints."""
    assert SMPL24.parents is not None
    frames, places = [rotations[:, 0]], [rotations.new_zeros(len(rotations), 3)]
    for child, parent in enumerate(SMPL24.parents[1:], start=1):
        bone = rest_joints[child] - rest_joints[parent]
        places.append(places[parent] + frames[parent] @ bone)
        frames.append(frames[parent] @ rotations[:, child])
    return torch.stack(places, dim=1)
