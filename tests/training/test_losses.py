"""What the SFT losses are zero for, what they ignore, and what they equal."""

import pytest
import torch
from torch.nn import functional as F

from pose_rft.body.rotations import axis_angle_to_matrix, matrix_to_sixd
from pose_rft.policy.pose_head import PoseDistribution
from pose_rft.training.losses import LossParams, PoseLosses, answer_losses, pose_losses
from tests.support.training_fakes import Chain

PARAMS = LossParams(rotation=1.0, nll=0.1, joints=1.0)
N = 4


def poses(seed: int) -> torch.Tensor:
    rotations = axis_angle_to_matrix(0.5 * torch.randn(N, 24, 3, generator=torch.Generator().manual_seed(seed)))
    return matrix_to_sixd(rotations).flatten(1)


def losses(predicted: PoseDistribution, target: torch.Tensor, mask: torch.Tensor) -> PoseLosses:
    rotations = torch.stack([target.view(N, 24, 2, 3)[..., i, :] for i in range(2)], -1)
    third = torch.cross(rotations[..., 0], rotations[..., 1], dim=-1)
    joints = Chain().joints(torch.cat((rotations, third[..., None]), -1))
    return pose_losses(predicted, target, mask, joints - joints[:, :1], PARAMS, Chain())  # type: ignore[arg-type]


ALL = torch.ones(N, 24, dtype=torch.bool)


def test_a_point_at_the_truth_costs_nothing() -> None:
    found = losses(PoseDistribution(poses(0)), poses(0), ALL)
    assert found.nll is None and found.joints is not None
    assert found.rotation.abs().max() < 1e-6 and found.joints.abs().max() < 1e-6
    assert losses(PoseDistribution(poses(1)), poses(0), ALL).rotation.min() > 0.1


def test_joints_that_are_not_labelled_change_no_term_and_no_gradient() -> None:
    mask = ALL.clone()
    mask[:, [5, 22, 23]] = False
    found = []
    for wild in (0.0, 100.0):
        mean, log_std, target = poses(1), torch.full((N, 144), -1.0), poses(0)
        for tensor in (mean, target):
            tensor.view(N, 24, 6)[:, [5, 22, 23]] += wild * torch.randn(N, 3, 6)
        mean.requires_grad_()
        parts = losses(PoseDistribution(mean, log_std), target, mask)._replace(joints=None)
        total = parts.total(PARAMS)
        (gradient,) = torch.autograd.grad(total.sum(), mean)
        assert not gradient.view(N, 24, 6)[:, [5, 22, 23]].any()
        found.append(total.detach())
    torch.testing.assert_close(found[0], found[1])


def test_the_root_weighs_as_much_as_all_other_joints() -> None:
    target = matrix_to_sixd(torch.eye(3)).repeat(N, 24)
    turned = axis_angle_to_matrix(torch.tensor([0.0, 0.4, 0.0]))
    root, body = target.clone(), target.clone()
    root.view(N, 24, 6)[:, 0] = matrix_to_sixd(turned)
    body.view(N, 24, 6)[:, 1:] = matrix_to_sixd(turned)
    one, other = (losses(PoseDistribution(mean), target, ALL).rotation for mean in (root, body))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, (turned - torch.eye(3)).abs().mean().expand(N))


def test_nll_is_the_mean_over_labelled_numbers_of_the_normal_density() -> None:
    mask = ALL.clone()
    mask[:, 22:] = False
    mean, log_std, target = poses(1), torch.full((N, 144), -1.0), poses(0)
    density = torch.distributions.Normal(mean, log_std.exp()).log_prob(target)
    found = losses(PoseDistribution(mean, log_std), target, mask).nll
    torch.testing.assert_close(found, -density[:, : 22 * 6].mean(1))


def test_answers_are_averaged_over_their_own_tokens() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels, rows = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 0, 0, 2, 2])
    found = answer_losses(logits, labels, rows, 3)
    assert found[0] == pytest.approx(float(F.cross_entropy(logits[:3], labels[:3])))
    assert found[1] == 0 and found[2] == pytest.approx(float(F.cross_entropy(logits[3:], labels[3:])))
