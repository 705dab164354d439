"""Pose-aware image encoders: what the policy sees beside CLIP (paper, appendix A).

Four kinds share one interface: `blazepose` (the sample's, in `blazepose.py`), `vitpose` (transformers' ViTPose), `hmr2`
(the ViT-H of HMR2.0 and TokenHMR), and `conv_vit`, which is small and trained here on 2D keypoints. All take the same
square crop, normalised with ImageNet's mean and deviation; `vitpose` and `hmr2` read its middle columns (256 x 192 of
256 x 256), as their own code does. They are frozen inside the policy. Architecture sources: ViTPose (arXiv 2204.12484),
HMR2.0 (arXiv 2305.20091).
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, VitPoseConfig, VitPoseForPoseEstimation
from transformers import initialization as init

from pose_rft.body.joints import COCO17, SMPL24
from pose_rft.errors import PoseRftError
from pose_rft.policy.architectures import conv_vit_config
from pose_rft.policy.config import ConvVitConfig, Hmr2VitConfig
from pose_rft.policy.room import check_room

if TYPE_CHECKING:  # the model runs without pydantic
    from pose_rft.policy.params import PoseEncoderParams


class PoseEncoder(PreTrainedModel):
    """Encodes an image of a person as tokens that carry its pose.

    `tokens` has two steps: `observe` reads the image, which is expensive and never changes; `interpret` is the part
    trained on top of it. Most encoders have only the first step.

    Attributes:
        image_size: side P of the square crop that `tokens` takes, px.
        width: size of a token.
        grid: (rows, columns) of the tokens over the crop; fewer columns than rows = the crop's middle columns.
    """

    base_model_prefix = "pose_encoder"
    main_input_name = "pixel_values"
    input_modalities = "image"
    image_size: int
    width: int
    grid: tuple[int, int]
    learned: str | None = None
    """Name of the submodule behind `interpret`; training it does not change observations."""
    reads_pose = False
    mirrors = False

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, P, P) normalised pixels → (B, rows · columns, width), row by row."""
        return self.interpret(self.observe(pixels))

    def observe(self, pixels: Tensor) -> Tensor:
        """(B, 3, P, P) normalised pixels → (B, L, W), observations that may be cached."""
        raise NotImplementedError

    def mirror(self, observed: Tensor) -> Tensor:
        """Observations (B, L, W) of the mirrored crops from those of the crops; only for encoders with `mirrors`."""
        raise NotImplementedError

    def interpret(self, observed: Tensor) -> Tensor:
        """Observations (B, L, W) → tokens (B, rows · columns, width)."""
        return observed

    def pose(self, tokens: Tensor) -> Tensor:
        """Tokens (B, rows · columns, width) → pose (B, 144), 6D, root in the camera frame; only with `reads_pose`."""
        raise NotImplementedError

    def keypoints(self, pixels: Tensor) -> Tensor:
        """(B, 3, P, P) → (B, 24, 3): x, y of SMPL's joints in crop coordinates [-1, 1], confidence in [0, 1].

        Joints that the encoder does not know have confidence 0.

        Raises:
            PoseRftError: this encoder predicts no keypoints.
        """
        raise PoseRftError(f"A {self.config.model_type} encoder predicts no 2D keypoints; use conv_vit or vitpose.")

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tokens(pixels)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer layer with the parameter names of ViTPose's and HMR2.0's own code."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        same = channels_in == channels and stride == 1
        shortcut = [nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)]
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class ConvVit(PoseEncoder):
    """Few tokens, for CPUs: residual stages to stride 16, transformer layers, heatmaps read from the tokens.

    Each grid token predicts its own 4 x 4 patch of every joint's heatmap (stride 4), and a soft-argmax reads the joint.
    The policy receives each grid token together with all keypoints: otherwise a language model of a million parameters
    would spend its whole training finding out which token holds which joint.
    """

    config_class = ConvVitConfig
    config: ConvVitConfig
    STRIDE = 16
    UPSAMPLING = 4

    def __init__(self, config: ConvVitConfig) -> None:
        super().__init__(config)
        if config.image_size % self.STRIDE:
            raise PoseRftError(f"image.pose_size is {config.image_size}, expected a multiple of {self.STRIDE} px.")
        c, side = config.width, config.image_size // self.STRIDE
        channels = 4 * c
        self.image_size, self.grid = config.image_size, (side, side)
        self.width = channels + 3 * len(SMPL24)
        self.stem = nn.Sequential(
            nn.Conv2d(3, c // 2, 3, 2, 1, bias=False),
            nn.BatchNorm2d(c // 2),
            nn.ReLU(),
            nn.Conv2d(c // 2, c, 3, 2, 1, bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(),
        )
        self.stages = nn.Sequential(
            Residual(c, c),
            Residual(c, 2 * c, 2),
            Residual(2 * c, 2 * c),
            Residual(2 * c, 4 * c, 2),
            Residual(4 * c, 4 * c),
        )
        self.position = nn.Parameter(torch.empty(1, side * side, channels))
        self.blocks = nn.Sequential(*(Block(channels, config.heads, 2) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(channels)
        self.heatmap = nn.Linear(channels, len(SMPL24) * self.UPSAMPLING**2)
        self.post_init()

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, P, P) → (B, L, 4 c), the grid tokens alone."""
        maps = self.stages(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        return self.norm(self.blocks(maps.flatten(2).transpose(1, 2) + self.position))

    def observe(self, pixels: Tensor) -> Tensor:
        """The features of crops, with the keypoints appended to each token."""
        features = self.features(pixels)
        found = soft_argmax(self.heatmaps(features)).flatten(1).to(features.dtype)
        return torch.cat([features, found[:, None].expand(-1, features.shape[1], -1)], -1)

    def heatmaps(self, features: Tensor) -> Tensor:
        """(B, L, 4 c) → (B, 24, H, W) logits, H = W = P / 4."""
        (rows, columns), up, joints = self.grid, self.UPSAMPLING, len(SMPL24)
        patches = self.heatmap(features).view(-1, rows, columns, up, up, joints)  # row, column, row in patch, ...
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, joints, rows * up, columns * up)

    def keypoints(self, pixels: Tensor) -> Tensor:
        """(B, 24, 3): SMPL's 2D joints in [-1, 1] over the crop, and their confidence (0: unknown to the network)."""
        return soft_argmax(self.heatmaps(self.features(pixels)))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, ConvVit):
            init.normal_(module.position, std=0.02)


def soft_argmax(logits: Tensor) -> Tensor:
    """Expected position under each heatmap, and the share of its mass near its peak.

    Args:
        logits: (B, J, H, W).
    Returns:
        (B, J, 3): x, y in [-1, 1] over the map's extent (cell centres), mass of the best 3 x 3 window.
    """
    batch, joints, height, width = logits.shape
    mass = logits.float().flatten(2).softmax(-1).view(batch, joints, height, width)
    x, y = (((torch.arange(n, device=mass.device) + 0.5) / n * 2 - 1) for n in (width, height))
    peak = 9 * F.avg_pool2d(mass.detach(), 3, 1, 1).flatten(2).amax(-1)  # torch's ONNX drops `divisor_override`
    return torch.stack([(mass.sum(2) * x).sum(-1), (mass.sum(3) * y).sum(-1), peak], -1)


def middle_columns(pixels: Tensor, width: int) -> Tensor:
    """(B, C, H, H) → (B, C, H, width): HMR2.0 and ViTPose read the middle of a square crop."""
    start = (pixels.shape[-1] - width) // 2
    return pixels[..., start : start + width]


class VitPoseEncoder(PoseEncoder):
    """transformers' ViTPose; the tokens are the layer-normed last feature map of its backbone."""

    config_class = VitPoseConfig
    config: VitPoseConfig

    def __init__(self, config: VitPoseConfig) -> None:
        super().__init__(config)
        backbone: Any = config.backbone_config
        self._columns, self._experts = backbone.image_size[1], backbone.num_experts
        height, width = backbone.image_size
        self.image_size, self.width = height, backbone.hidden_size
        self.grid = (height // backbone.patch_size[0], width // backbone.patch_size[1])
        self.vitpose = VitPoseForPoseEstimation(config)
        self.post_init()

    def _expert(self, pixels: Tensor) -> Tensor | None:
        """ViTPose+ has one expert per data set; 0 is COCO."""
        several = self._experts > 1
        return torch.zeros(len(pixels), dtype=torch.long, device=pixels.device) if several else None

    def observe(self, pixels: Tensor) -> Tensor:
        """The features of crops."""
        person = middle_columns(pixels, self._columns)
        return self.vitpose.backbone(person, dataset_index=self._expert(person)).feature_maps[-1]

    def keypoints(self, pixels: Tensor) -> Tensor:
        """(B, 24, 3): SMPL's 2D joints in [-1, 1] over the crop, and their confidence (0: unknown to the network)."""
        person = middle_columns(pixels, self._columns)
        peaks = soft_argmax(20 * self.vitpose(person, dataset_index=self._expert(person)).heatmaps)
        found = torch.zeros(len(pixels), len(SMPL24), 3, device=pixels.device)
        for index, name in enumerate(COCO17.joints[: peaks.shape[1]]):
            if name in SMPL24.joints:
                found[:, SMPL24.index(name)] = peaks[:, index]
        found[..., 0] *= person.shape[-1] / pixels.shape[-1]  # from the middle columns to the whole crop
        return found


class PatchEmbed(nn.Module):
    """Embeds 16 px patches of the image padded by 2 px, as in ViTPose and HMR2.0."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch, padding=2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Hmr2Vit(PoseEncoder):
    """The image backbone of HMR2.0 and TokenHMR, with their parameter names."""

    config_class = Hmr2VitConfig
    config: Hmr2VitConfig

    def __init__(self, config: Hmr2VitConfig) -> None:
        super().__init__(config)
        height, width = config.image_size
        self.image_size, self.width = height, config.hidden_size
        self.grid = (height // config.patch_size, width // config.patch_size)
        self.patch_embed = PatchEmbed(config.patch_size, self.width)
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + 1, self.width))
        self.blocks = nn.ModuleList(
            Block(self.width, config.num_attention_heads, config.mlp_ratio) for _ in range(config.num_hidden_layers)
        )
        self.last_norm = nn.LayerNorm(self.width, eps=1e-6)
        self.post_init()

    def observe(self, pixels: Tensor) -> Tensor:
        """The features of crops."""
        x = self.patch_embed(middle_columns(pixels, self.config.image_size[1]))
        x = x + self.pos_embed[:, 1:] + self.pos_embed[:, :1]  # row 0 was the class token's; it shifts all patches
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Hmr2Vit):
            init.normal_(module.pos_embed, std=0.02)


def create_conv_vit(params: "PoseEncoderParams", image_size: int) -> ConvVit:
    """Creates a fresh `conv_vit` for crops of `image_size` px (image.pose_size).

    Raises:
        PoseRftError: the section has no `conv_vit` sizes, or such a network does not fit into memory.
    """
    config = conv_vit_config(params, image_size)
    check_room(lambda: ConvVit(config), "pose_encoder.conv_vit")
    return ConvVit(config)
