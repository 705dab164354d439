"""A pose landmark network of three small convolutions with the real one's inputs and outputs, and random weights."""

import torch

from pose_rft.policy.blazepose import BlazePose
from pose_rft.policy.config import BlazePoseConfig

LANDMARKS, SCORE, WORLD = 195, 1, 117
MAPS = 4 * 8 * 8


def tiny_graph() -> dict[str, object]:
    """256 px → maps of 4 x 8 x 8 → 39 x 5 landmarks, a score, 39 x 3 metres."""

    def conv(source: int, output: int, channels: list[int], side: int, kernel: int) -> dict[str, object]:
        window = {"kernel": [kernel, kernel], "stride": [kernel, kernel], "pad": [0, 0, 0, 0]}
        shape = [channels[1], side, side]
        return (
            {"op": "conv", "inputs": [source], "output": output, "shape": shape, "channels": channels}
            | window
            | {
                "groups": 1,
                "act": "relu6" if side > 1 else "none",
            }
        )

    steps = [conv(0, 1, [3, 4], 8, 32)]
    for output, width in ((2, LANDMARKS), (4, SCORE), (6, WORLD)):
        steps.append(conv(1, output, [4, width], 1, 8))
        steps.append({"op": "reshape", "inputs": [output], "output": output + 1, "shape": [width]})
    steps.append({"op": "sigmoid", "inputs": [5], "output": 8, "shape": [SCORE]})
    return {"input": 0, "input_shape": [3, 256, 256], "outputs": [3, 8, 7, 1], "steps": steps}


def tiny_blazepose() -> BlazePose:
    torch.manual_seed(5)
    return BlazePose(BlazePoseConfig(graph=tiny_graph(), lifter_width=16, lifter_layers=1)).eval()
