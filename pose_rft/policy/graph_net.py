"""Runs a convolutional network, read from a .tflite file (`io/tflite.py`), in torch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pose_rft.errors import PoseRftError
from pose_rft.io.tflite import Graph, Step, Weights

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6}

# Nothing else reads a convolution's raw output, so its activation runs in place (half of the non-convolution time).
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu_,
    "relu6": partial(F.relu6, inplace=True),
}


class GraphNet(nn.Module):
    """Runs the steps of a graph; its state is `convs.ID.weight` and `convs.ID.bias`, ID = a convolution's output.

    Raises:
        PoseRftError: the graph has a step of an unknown kind.
    """

    def __init__(self, graph: Graph, weights: Weights | None = None) -> None:
        super().__init__()
        self.graph = graph
        unknown = {step["op"] for step in graph["steps"]} - set(OPERATIONS) - {"conv"}
        if unknown:
            raise PoseRftError(f"The graph has steps {sorted(unknown)}, expected {', '.join(OPERATIONS)} or conv.")
        self.convs = nn.ModuleDict(
            {str(step["output"]): _conv(step) for step in graph["steps"] if step["op"] == "conv"}
        )
        self.last_use = {source: index for index, step in enumerate(graph["steps"]) for source in step["inputs"]}
        if weights is not None:
            self.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})

    def forward(self, pixels: Tensor, keep: Sequence[int] = ()) -> dict[int, Tensor]:
        """(B, 3, H, W) → the graph's outputs and the tensors listed in `keep`, by id; maps are (B, C, h, w)."""
        values = {self.graph["input"]: pixels.contiguous(memory_format=torch.channels_last)}
        wanted = {*self.graph["outputs"], *keep}
        for index, step in enumerate(self.graph["steps"]):
            inputs = [values[source] for source in step["inputs"]]
            values[step["output"]] = self._run(step, inputs)
            for source in step["inputs"]:
                if self.last_use[source] == index and source not in wanted:
                    values.pop(source, None)
        return {name: values[name] for name in wanted}

    def _run(self, step: Step, inputs: list[Tensor]) -> Tensor:
        if step["op"] != "conv":
            return OPERATIONS[step["op"]](step, inputs)
        conv = cast(nn.Conv2d, self.convs[str(step["output"])])
        left, right, top, bottom = step["pad"]
        picture = inputs[0]
        if (left, top) != (right, bottom):
            picture = F.pad(picture, (0, right - left, 0, bottom - top))
        found = F.conv2d(picture, conv.weight, conv.bias, step["stride"], (top, left), groups=conv.groups)
        return IN_PLACE[step["act"]](found)


def _conv(step: Step) -> nn.Conv2d:
    channels_in, channels_out = step["channels"]
    return nn.Conv2d(channels_in, channels_out, step["kernel"], step["stride"], groups=step["groups"])


def _max_pool(step: Step, inputs: list[Tensor]) -> Tensor:
    padded = F.pad(inputs[0], step["pad"], value=float("-inf")) if any(step["pad"]) else inputs[0]
    return ACTIVATIONS[step["act"]](F.max_pool2d(padded, step["kernel"], step["stride"]))


def _depth_to_space(step: Step, inputs: list[Tensor]) -> Tensor:
    """Uses TensorFlow's channel order (row in block, column in block, channel), unlike torch's pixel_shuffle."""
    batch, channels, height, width = inputs[0].shape
    k = step["block"]
    blocks = inputs[0].reshape(batch, k, k, channels // k**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(batch, channels // k**2, height * k, width * k)


def _reshape(step: Step, inputs: list[Tensor]) -> Tensor:
    """Reshapes in channels-last order, as TensorFlow does."""
    x = inputs[0].permute(0, 2, 3, 1) if inputs[0].dim() == 4 else inputs[0]
    shape = step["shape"]
    if len(shape) == 3:
        channels, height, width = shape
        return x.reshape(len(x), height, width, channels).permute(0, 3, 1, 2)
    return x.reshape(len(x), *shape)


OPERATIONS: dict[str, Callable[[Step, list[Tensor]], Tensor]] = {
    "add": lambda step, inputs: ACTIVATIONS[step["act"]](inputs[0] + inputs[1]),
    "max_pool": _max_pool,
    "pad": lambda step, inputs: F.pad(inputs[0], step["pad"]),
    "resize": lambda step, inputs: F.interpolate(inputs[0], step["shape"][1:], mode="bilinear"),
    "depth_to_space": _depth_to_space,
    "concat": lambda step, inputs: torch.cat(inputs, step["axis"]),
    "reshape": _reshape,
    "sigmoid": lambda step, inputs: inputs[0].sigmoid(),
}
