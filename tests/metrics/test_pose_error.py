import pytest
import torch

from pose_rft.metrics.pose_error import mpjpe, pa_mpjpe, similarity_align


def random_joints(seed: int, count: int = 6, joints: int = 14) -> torch.Tensor:
    return torch.randn(count, joints, 3, generator=torch.Generator().manual_seed(seed)) * 0.3


def random_rotation(seed: int) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    return q * torch.linalg.det(q).sign()


def test_mpjpe_is_the_mean_distance_in_millimetres():
    target = random_joints(0)
    assert torch.allclose(mpjpe(target + torch.tensor([0.0, 0.03, 0.04]), target), torch.full((6,), 50.0), atol=1e-3)


def test_mpjpe_does_not_forgive_a_shift_but_pa_mpjpe_does():
    target = random_joints(1)
    moved = target + 0.5
    assert (mpjpe(moved, target) > 500).all()
    assert (pa_mpjpe(moved, target) < 1e-2).all()


@pytest.mark.parametrize("seed", range(5))
def test_pa_mpjpe_is_zero_under_rotation_scale_and_shift(seed):
    target = random_joints(seed)
    moved = 1.7 * target @ random_rotation(seed).T + torch.randn(6, 1, 3)
    assert (pa_mpjpe(moved, target) < 1e-2).all()


def test_pa_mpjpe_of_a_mirrored_pose_is_not_zero():
    target = random_joints(3)
    assert (pa_mpjpe(target * torch.tensor([-1.0, 1.0, 1.0]), target) > 20).all()


def test_alignment_never_raises_the_squared_error():
    pred, target = random_joints(4), random_joints(5)
    centred = pred - pred.mean(1, keepdim=True) + target.mean(1, keepdim=True)
    aligned = (similarity_align(pred, target) - target).square().sum((1, 2))
    assert (aligned <= (centred - target).square().sum((1, 2)) + 1e-6).all()


def test_samples_do_not_influence_each_other():
    pred, target = random_joints(6), random_joints(7)
    alone = torch.cat([pa_mpjpe(p[None], t[None]) for p, t in zip(pred, target, strict=True)])
    assert torch.allclose(pa_mpjpe(pred, target), alone, atol=1e-3)


def test_a_collapsed_prediction_has_a_finite_error():
    assert torch.isfinite(pa_mpjpe(torch.zeros(2, 14, 3), random_joints(8, 2))).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="two"):
        mpjpe(torch.zeros(2, 14, 3), torch.zeros(2, 17, 3))
    with pytest.raises(ValueError, match="3 joints"):
        pa_mpjpe(torch.zeros(2, 2, 3), torch.zeros(2, 2, 3))
