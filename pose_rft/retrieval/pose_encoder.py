"""Pose side of the reward model: PoseScript's pose encoder (the trunk of VPoser's encoder with a bottleneck).

Input: 52 joints of SMPL-H as axis-angle, 156 numbers. The first 22 joints of SMPL and SMPL-H are the same; SMPL's two
hand joints have no counterpart (joints 22 and 23 of SMPL-H are fingers), so all 30 hand joints stay neutral.
"""

import torch
from torch import Tensor, nn

from pose_rft.body.rotations import matrix_to_axis_angle

BODY_JOINTS = 22
SMPLH_JOINTS = 52
DROPOUT, SLOPE = 0.1, 0.01  # VPoser


class AxisAnglePoseEncoder(nn.Module):
    """(N, 24, 3, 3) local rotations, AMASS frame without heading → (N, latent) of length 1. Use in eval mode."""

    def __init__(self, neurons: int, bottleneck: int, latent: int) -> None:
        super().__init__()
        numbers = SMPLH_JOINTS * 3
        self.layers = nn.Sequential(
            nn.BatchNorm1d(numbers),
            nn.Linear(numbers, neurons),
            nn.LeakyReLU(SLOPE),
            nn.BatchNorm1d(neurons),
            nn.Dropout(DROPOUT),
            nn.Linear(neurons, neurons),
            nn.Linear(neurons, neurons),
            nn.Linear(neurons, bottleneck),
            nn.ReLU(),
            nn.Linear(bottleneck, latent),
        )

    def forward(self, rotations: Tensor) -> Tensor:
        return nn.functional.normalize(self.layers(smplh_axis_angle(rotations)), dim=-1)


def smplh_axis_angle(rotations: Tensor) -> Tensor:
    """(N, 24, 3, 3) → (N, 156) radians: SMPL's 22 body joints, then neutral hands."""
    body = matrix_to_axis_angle(rotations[:, :BODY_JOINTS]).flatten(1)
    hands = body.new_zeros(len(body), (SMPLH_JOINTS - BODY_JOINTS) * 3)
    return torch.cat((body, hands), dim=1)
