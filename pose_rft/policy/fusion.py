"""Fuses two encoders into one sequence of image tokens for the language model (paper, appendix A).

CLIP's tokens pass through LLaVA's own projector W_a, the pose encoder's through W_b, which has the same form. Then
`add` sums them token by token on CLIP's grid, and `concat` concatenates the two sequences; `channel` is UniPose's
alternative (concatenate the channels, project once); `clip_only` leaves the pose encoder out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pose_rft.errors import PoseRftError
from pose_rft.policy.config import FusionKind


@dataclass(frozen=True)
class ImageTokens:
    """Frozen encoders' output for B images: clip (B, Lc, dc), and pose (B, Lp, dp) if there is a pose encoder."""

    clip: Tensor
    pose: Tensor | None

    def __len__(self) -> int:
        return len(self.clip)

    def select(self, index: Tensor | slice | list[int]) -> "ImageTokens":
        """The images at `index` along the batch."""
        return ImageTokens(self.clip[index], None if self.pose is None else self.pose[index])

    def to(self, *args: object, **kwargs: object) -> "ImageTokens":
        """Applies `Tensor.to` to both."""
        pose = None if self.pose is None else self.pose.to(*args, **kwargs)  # type: ignore[call-overload]
        return ImageTokens(self.clip.to(*args, **kwargs), pose)  # type: ignore[call-overload]


class Projector(nn.Module):
    """Linear, GELU, Linear: LLaVA-1.5's `mlp2x_gelu`; `shortcut` adds a linear skip connection."""

    def __init__(self, width_in: int, width: int, inner: int | None = None, shortcut: bool = False) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, inner or width)
        self.linear_2 = nn.Linear(inner or width, width)
        self.shortcut = nn.Linear(width_in, width, bias=False) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        bent = self.linear_2(F.gelu(self.linear_1(x)))
        return bent if self.shortcut is None else bent + self.shortcut(x)


def resample(tokens: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resamples tokens over a square crop from one grid to another.

    Args:
        tokens: (B, rows · columns, d) of `grid` = (rows, columns); fewer columns than rows: the crop's middle columns.
        target: desired (rows, columns).
    Returns:
        (B, rows · columns of the target, d); zeros where the encoder saw nothing.
    """
    if grid == target:
        return tokens
    rows, columns = grid
    planes = tokens.transpose(1, 2).unflatten(2, grid)
    left = (rows - columns) // 2
    planes = F.pad(planes, (left, rows - columns - left))
    return F.interpolate(planes, size=target, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


class Fusion(nn.Module):
    """Trained part of the image path besides LLaVA's projector; yields `num_tokens` image tokens per image."""

    def __init__(
        self,
        kind: FusionKind,
        clip_width: int,
        clip_grid: tuple[int, int],
        pose_width: int | None,
        pose_grid: tuple[int, int] | None,
        width: int,
        inner_width: int | None = None,
        shortcuts: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.clip_grid, self.pose_grid = kind, clip_grid, pose_grid
        self.num_tokens = clip_grid[0] * clip_grid[1]
        if kind == "clip_only":
            return
        if pose_width is None or pose_grid is None:
            raise PoseRftError(f"Fusion `{kind}` needs a pose encoder; give one or set policy.fusion to clip_only.")
        width_in = pose_width + (clip_width if kind == "channel" else 0)
        self.projector = Projector(width_in, width, inner_width, shortcuts)
        if kind == "concat":
            self.num_tokens += pose_grid[0] * pose_grid[1]

    def forward(self, tokens: ImageTokens, clip_projector: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, num_tokens, width of the language model)."""
        if self.kind == "clip_only":
            return clip_projector(tokens.clip)
        if tokens.pose is None or self.pose_grid is None:
            raise PoseRftError(f"Fusion `{self.kind}` needs pose tokens, but the image tokens hold CLIP's only.")
        if self.kind == "channel":
            pose = resample(tokens.pose, self.pose_grid, self.clip_grid)
            return self.projector(torch.cat([tokens.clip, pose], -1))
        pose = self.projector(tokens.pose)
        if self.kind == "concat":
            return torch.cat([clip_projector(tokens.clip), pose], 1)
        return clip_projector(tokens.clip) + resample(pose, self.pose_grid, self.clip_grid)
