"""Exports the encoder and heads of a policy to ONNX, for use without torch.

`encoder.onnx`: a normalised crop → the encoder's output (for BlazePose, of a single forward pass). `lifter.onnx`:
landmarks and maps → pose, if there is a lifter. `head.onnx`: a hidden state of the language model and the initial pose
→ mean, log_std. Shapes are in docs/push.md. The language model between them has its own cache and is left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pose_rft.errors import PoseRftError
from pose_rft.policy.blazepose import LANDMARKS, NUMBERS, BlazePose
from pose_rft.policy.config import POSE_NUMBERS
from pose_rft.policy.hub import load_policy
from pose_rft.policy.model import PoseLlava


class Part(NamedTuple):
    """A network with example inputs; `free`: their first dimension is dynamic."""

    name: str
    network: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    free: bool


class Look(nn.Module):
    """One forward pass of an encoder on a crop."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        encoder = self.encoder
        if isinstance(encoder, BlazePose):
            seen, maps = encoder._look(pixels)
            return torch.cat([seen, maps], 1)
        return encoder.tokens(pixels)  # type: ignore[operator]


class Head(nn.Module):
    """The pose head with plain tensors as outputs."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor, start: Tensor) -> tuple[Tensor, ...]:
        found = self.head(hidden, start)
        return (found.mean,) if found.log_std is None else (found.mean, found.log_std)


def parts(model: PoseLlava) -> Iterator[Part]:
    """Yields the parts of a policy to export, with example inputs."""
    generator = torch.Generator().manual_seed(0)

    def example(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    encoder = model.pose_encoder
    if encoder is not None:
        side = encoder.image_size
        yield Part("encoder", Look(encoder), {"pixels": example(1, 3, side, side)}, ("seen",), False)
    if isinstance(encoder, BlazePose):
        seen = {"landmarks": example(2, len(LANDMARKS), NUMBERS), "maps": example(2, 2, encoder.maps)}
        yield Part("lifter", encoder.lifter, seen, ("pose",), True)
    width = model.config.get_text_config().hidden_size
    inputs = {"hidden": example(2, width), "start": example(2, POSE_NUMBERS)}
    outputs = ("mean", "log_std") if model.pose_head.log_std is not None else ("mean",)
    yield Part("head", Head(model.pose_head), inputs, outputs, True)


def export(policy: Path, out: Path) -> list[Path]:
    """Writes the parts; returns their files.

    Raises:
        PoseRftError: the extra `export` is not installed, or the folder holds no policy.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PoseRftError(
            f"ONNX needs the package {error.name}, which is not installed: pip install 'pose-rft[export]'."
        ) from None
    model, _ = load_policy(policy)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for part in parts(model):
        path = out / f"{part.name}.onnx"
        batch = torch.export.Dim("batch")
        shapes = {name: {0: batch} for name in part.inputs} if part.free else None
        torch.onnx.export(
            part.network.eval(),
            tuple(part.inputs.values()),
            path,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        written.append(path)
    return written
