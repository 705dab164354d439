"""A distribution over poses from one hidden state: π(p | q, a) = N(p; μ, Σ) (paper eq. 2).

The hidden state is the one that *predicts* `<POSE>` (as in ChatPose). The head is ChatPose's, Linear-ReLU-Linear to 144
numbers, with a second one for log σ and, for `low_rank`, a third for U in Σ = diag(σ²) + U Uᵀ. The density is over raw
6D numbers, before orthonormalisation, so what is sampled is what is scored. Everything runs in float32 outside
autocast, because 144 log-densities in bfloat16 are off by half a nat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal, kl_divergence
from torch.nn import functional as F

from pose_rft.errors import PoseRftError
from pose_rft.policy.config import JOINTS, POSE_NUMBERS, PoseLlavaConfig

IDENTITY_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class PoseDistribution:
    """Distributions of N poses in float32: mean (N, 144), log_std (N, 144), factor U (N, 144, r).

    `log_std` is None for a point prediction (no density), `factor` is None for a diagonal covariance. Masks are (N, 24)
    bool, True = the joint counts; any other joint contributes exactly zero.
    """

    mean: Tensor
    log_std: Tensor | None = None
    factor: Tensor | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def select(self, index: Tensor | slice) -> "PoseDistribution":
        """The distributions at `index`."""
        return PoseDistribution(*(None if x is None else x[index] for x in (self.mean, self.log_std, self.factor)))  # type: ignore[arg-type]

    def detach(self) -> "PoseDistribution":
        """The same distribution, detached from the autograd graph."""
        return PoseDistribution(*(None if x is None else x.detach() for x in (self.mean, self.log_std, self.factor)))  # type: ignore[arg-type]

    def with_spread_held(self) -> "PoseDistribution":
        """The same distribution, with gradient through the mean only."""
        held = self.detach()
        return PoseDistribution(self.mean, held.log_std, held.factor)

    @staticmethod
    def join(parts: "Sequence[PoseDistribution]") -> "PoseDistribution":
        """Concatenates distributions of the same kind."""
        columns = zip(*((part.mean, part.log_std, part.factor) for part in parts), strict=True)
        return PoseDistribution(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]

    def cpu(self) -> "PoseDistribution":
        """The same distribution on the CPU."""
        return PoseDistribution(*(None if x is None else x.cpu() for x in (self.mean, self.log_std, self.factor)))  # type: ignore[arg-type]

    def scaled(self, scale: Tensor) -> "PoseDistribution":
        """Multiplies each joint's σ by its factor in `scale` (24,); means, correlations and points do not change."""
        numbers = scale.to(self.mean).repeat_interleave(POSE_NUMBERS // JOINTS)
        log_std = None if self.log_std is None else self.log_std + numbers.log()
        return PoseDistribution(self.mean, log_std, None if self.factor is None else self.factor * numbers[:, None])

    def standardised(self, x: Tensor) -> Tensor:
        """(N, 144) → (N, 24, 6): deviation of each number divided by its own σ.

        Raises:
            PoseRftError: a point prediction has no density.
        """
        self._log_std()
        return ((x - self.mean) / self.std()).unflatten(-1, (JOINTS, 6))

    def whitened(self, x: Tensor) -> Tensor:
        """(N, 144) → (N, 24, 6): deviation of each joint, whitened by the Cholesky root of its 6 × 6 covariance.

        Raises:
            PoseRftError: a point prediction has no density.
        """
        if self.factor is None:
            return self.standardised(x)
        factor = self.factor.double().unflatten(1, (JOINTS, 6))  # σ and U may differ by orders of magnitude
        variance = torch.exp(2 * self._log_std().double()).unflatten(-1, (JOINTS, 6))
        root = torch.linalg.cholesky(factor @ factor.transpose(-1, -2) + torch.diag_embed(variance))
        deviation = (x - self.mean).double().unflatten(-1, (JOINTS, 6, 1))
        return torch.linalg.solve_triangular(root, deviation, upper=False)[..., 0].float()

    @property
    def noise_width(self) -> int:
        """Number of standard normal variables behind one pose: one per pose number, and r more for U."""
        return self.mean.shape[-1] + (0 if self.factor is None else self.factor.shape[-1])

    @torch.no_grad()
    def sample(self, generator: torch.Generator, k: int = 1) -> Tensor:
        """Draws k samples of each, (N, k, 144), without gradient. A point prediction returns its mean."""
        shape = (len(self), k, self.noise_width)
        return self.at(torch.randn(shape, generator=generator, device=self.mean.device))

    def at(self, noise: Tensor) -> Tensor:
        """Maps standard normal noise to poses, (N, k, noise_width) → (N, k, 144); differentiable in mean, σ and U."""
        own, shared = noise[..., : self.mean.shape[-1]], noise[..., self.mean.shape[-1] :]
        if self.log_std is None:
            return self.mean[:, None].expand_as(own).clone()
        poses = self.mean[:, None] + self.log_std.exp()[:, None] * own
        return poses if self.factor is None else poses + shared @ self.factor.transpose(1, 2)

    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-density of x (N, 144) → (N,), or of k poses each (N, k, 144) → (N, k).

        Raises:
            PoseRftError: a point prediction has no density.
        """
        if self.factor is None:
            return self.joint_log_prob(x, mask).sum(-1)
        several = x.dim() == 3
        mean, std, factor = self._neutralised(mask)
        numbers = _numbers(mask, self.mean)
        x = torch.where(numbers[:, None], x if several else x[:, None], mean[:, None])  # (N, k, 144)
        normal = LowRankMultivariateNormal(mean[:, None], factor[:, None], std[:, None].square(), validate_args=False)
        ignored = (~numbers).sum(-1, keepdim=True)  # each excluded number added log N(0; 0, 1)
        density = normal.log_prob(x) + 0.5 * LOG_2PI * ignored
        return density if several else density[:, 0]

    def joint_log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-density of each joint's six numbers: (N, 144) → (N, 24), or (N, k, 144) → (N, k, 24).

        Raises:
            PoseRftError: a point prediction has no density, or the covariance is low-rank: joints are then dependent.
        """
        log_std = self._log_std()
        if self.factor is not None:
            raise PoseRftError("A low-rank covariance ties the joints; a per-joint density needs `diagonal`.")
        mean = self.mean
        if x.dim() == 3:
            mean, log_std = mean[:, None], log_std[:, None]
        deviation = (x - mean) * torch.exp(-log_std)
        terms = -0.5 * deviation.square() - log_std - 0.5 * LOG_2PI
        joints = terms.unflatten(-1, (JOINTS, 6)).sum(-1)
        if mask is None:
            return joints
        return joints.masked_fill(~(mask[:, None] if x.dim() == 3 else mask), 0.0)

    def kl(self, other: "PoseDistribution", mask: Tensor | None = None) -> Tensor:
        """KL(self ‖ other) in closed form → (N,) nats; exactly 0 for equal diagonal distributions.

        Raises:
            PoseRftError: a point prediction has no density, or the covariances are of different kinds.
        """
        own, reference = self._log_std(), other._log_std()
        if (self.factor is None) != (other.factor is None):
            raise PoseRftError("KL between a diagonal and a low-rank pose distribution; both must be of one kind.")
        if self.factor is not None:
            (m, s, u), (m0, s0, u0) = self._neutralised(mask), other._neutralised(mask)
            return kl_divergence(
                LowRankMultivariateNormal(m, u, s.square(), validate_args=False),
                LowRankMultivariateNormal(m0, u0, s0.square(), validate_args=False),
            )
        log_ratio = reference - own
        shift = (self.mean - other.mean) * torch.exp(-reference)
        terms = 0.5 * (torch.exp(-2 * log_ratio) + shift.square() - 1) + log_ratio
        return terms.masked_fill(~_numbers(mask, terms), 0.0).sum(-1)

    def entropy(self, mask: Tensor | None = None) -> Tensor:
        """Differential entropy → (N,) nats."""
        numbers = _numbers(mask, self.mean)
        constant = 0.5 * (1 + LOG_2PI)
        if self.factor is None:
            return (self._log_std() + constant).masked_fill(~numbers, 0.0).sum(-1)
        mean, std, factor = self._neutralised(mask)
        normal = LowRankMultivariateNormal(mean, factor, std.square(), validate_args=False)
        return normal.entropy() - constant * (~numbers).sum(-1)

    def std(self) -> Tensor:
        """Marginal standard deviation of each number, (N, 144); zeros for a point prediction."""
        if self.log_std is None:
            return torch.zeros_like(self.mean)
        variance = torch.exp(2 * self.log_std)
        return (variance if self.factor is None else variance + self.factor.square().sum(-1)).sqrt()

    def _log_std(self) -> Tensor:
        if self.log_std is None:
            raise PoseRftError("A point head has no density; use the gaussian variant for sampling, ratio and KL.")
        return self.log_std

    def _neutralised(self, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, σ and U, with the excluded numbers replaced by independent N(0, 1)."""
        assert self.factor is not None
        keep = _numbers(mask, self.mean)
        std = torch.exp(self._log_std().masked_fill(~keep, 0.0))
        return self.mean.masked_fill(~keep, 0.0), std, self.factor.masked_fill(~keep[..., None], 0.0)


def _numbers(mask: Tensor | None, like: Tensor) -> Tensor:
    """Joint mask (N, 24) → number mask (N, 144)."""
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    return mask.repeat_interleave(6, dim=-1)


class Float32Linear(nn.Linear):
    """A Linear that computes in float32, whatever the dtype of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.linear(x.float(), self.weight.float(), bias)


class PoseMlp(nn.Module):
    """Linear, ReLU, Linear, as in ChatPose; `shortcut` adds a linear skip connection."""

    def __init__(self, width: int, outputs: int, inner: int | None = None, shortcut: bool = False) -> None:
        super().__init__()
        self.inner = Float32Linear(width, inner or width)
        self.outer = Float32Linear(inner or width, outputs)
        self.shortcut = Float32Linear(width, outputs, bias=False) if shortcut else None

    def forward(self, hidden: Tensor) -> Tensor:
        bent = self.outer(F.relu(self.inner(hidden)))
        return bent if self.shortcut is None else bent + self.shortcut(hidden)


class PoseHead(nn.Module):
    """Hidden states (N, d) and initial poses (N, 144) → `PoseDistribution`.

    μ = start + mean_scale · MLP; log σ = min + (max − min) · sigmoid(MLP + offset), so that σ starts at
    exp(log_std_init) and stays strictly between its bounds with a gradient everywhere. The last layers are initialised
    to zero, so an untrained head predicts `start`: `mean_pose`, the training set's mean of the raw 6D numbers, or the
    pose encoder's prediction for the image (`PoseLlava.pose_start`).
    """

    mean_pose: Tensor

    def __init__(self, config: PoseLlavaConfig) -> None:
        super().__init__()
        width = config.get_text_config().hidden_size
        if not config.log_std_min < config.log_std_init < config.log_std_max:
            raise PoseRftError(
                f"policy.log_std: init {config.log_std_init} must lie between min {config.log_std_min} and max "
                f"{config.log_std_max}."
            )
        self.scale = config.mean_scale
        self.bounds = (config.log_std_min, config.log_std_max)
        start = (config.log_std_init - config.log_std_min) / (config.log_std_max - config.log_std_min)
        self.offset = math.log(start / (1 - start))
        self.rank = config.covariance_rank if config.covariance == "low_rank" else 0
        self.factor_init = 0.1 * math.exp(config.log_std_init)
        self.register_buffer("mean_pose", torch.tensor(IDENTITY_6D).repeat(JOINTS))
        gaussian = config.pose_head == "gaussian"

        def mlp(outputs: int) -> PoseMlp:
            return PoseMlp(width, outputs, config.inner_width, config.shortcuts)

        self.mean = mlp(POSE_NUMBERS)
        self.log_std = mlp(POSE_NUMBERS) if gaussian else None
        self.factor = mlp(POSE_NUMBERS * self.rank) if gaussian and self.rank else None

    def forward(self, hidden: Tensor, start: Tensor | None = None) -> PoseDistribution:
        with torch.autocast(hidden.device.type, enabled=False):
            start = self.mean_pose if start is None else start
            mean = start.float() + self.scale * self.mean(hidden)
            if self.log_std is None:
                return PoseDistribution(mean)
            low, high = self.bounds
            log_std = low + (high - low) * torch.sigmoid(self.log_std(hidden) + self.offset)
            if self.factor is None:
                return PoseDistribution(mean, log_std)
            return PoseDistribution(mean, log_std, self.factor(hidden).unflatten(-1, (POSE_NUMBERS, self.rank)))
