"""Text side of the reward model: a small transformer over frozen token features.

Architecture: PoseScript's transformer text encoder (features → ReLU → Linear → sinusoidal positions → transformer
encoder with GELU → masked mean → unit length), with any sentence encoder in place of DistilBERT. `summary_token` is
its other head: a learned first token whose final state goes through a linear layer (released models may have it).
"""

import math

import torch
from torch import Tensor, nn

from pose_rft.retrieval.params import TransformerParams

MOST_TOKENS = 5000  # size of PoseScript's position table; every encoder in use truncates texts far earlier


class FeatureTextEncoder(nn.Module):
    """(B, T, width) features with a (B, T) bool mask of real tokens → (B, latent) of length 1."""

    def __init__(self, width: int, latent: int, params: TransformerParams, summary_token: bool = False) -> None:
        super().__init__()
        self.projection = nn.Linear(width, latent)
        self.register_buffer("positions", sinusoids(MOST_TOKENS, latent), persistent=False)
        self.dropout = nn.Dropout(params.dropout)
        layer = nn.TransformerEncoderLayer(
            latent, params.heads, params.feedforward, params.dropout, activation="gelu", batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, params.layers, enable_nested_tensor=False)
        self.summary = nn.Parameter(torch.randn(latent)) if summary_token else None
        self.summary_out = nn.Linear(latent, latent) if summary_token else None

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        tokens = self.projection(torch.relu(features))
        if self.summary is not None:
            tokens = torch.cat((self.summary.expand(len(tokens), 1, -1), tokens), dim=1)
            mask = torch.cat((mask.new_ones(len(mask), 1), mask), dim=1)
        tokens = self.dropout(tokens + self.positions[: tokens.shape[1]])  # type: ignore[index]
        states = self.transformer(tokens, src_key_padding_mask=~mask)
        if self.summary_out is not None:
            pooled = self.summary_out(states[:, 0])
        else:
            weights = mask[..., None].to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(pooled, dim=-1)


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) sinusoidal position encodings of "Attention is all you need"; width must be even."""
    place = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack((torch.sin(place * rate), torch.cos(place * rate)), dim=-1).flatten(1)
