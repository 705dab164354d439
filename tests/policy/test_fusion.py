"""Token grids and the four fusions."""

import pytest
import torch
from torch import nn

from pose_rft.errors import PoseRftError
from pose_rft.policy.fusion import Fusion, ImageTokens, resample


def tokens(batch: int = 2, clip: int = 16, pose: int = 12) -> ImageTokens:
    torch.manual_seed(0)
    return ImageTokens(torch.randn(batch, clip, 8), torch.randn(batch, pose, 6))


def test_equal_grids_are_left_alone() -> None:
    x = torch.randn(2, 36, 5)
    assert resample(x, (6, 6), (6, 6)) is x


def test_the_middle_columns_land_in_the_middle_and_the_rest_is_zero() -> None:
    x = torch.ones(1, 16 * 12, 3)
    square = resample(x, (16, 12), (16, 16)).view(16, 16, 3)
    assert torch.equal(square[:, 2:14], torch.ones(16, 12, 3))
    assert not square[:, :2].any() and not square[:, 14:].any()


def test_resampling_keeps_a_place_in_its_place() -> None:
    """A token that holds its own position still does so on the finer grid."""
    rows, columns = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(16) + 0.5) / 16, indexing="ij")
    x = torch.stack([rows, columns], -1).view(1, 256, 2)
    fine = resample(x, (16, 16), (24, 24)).view(24, 24, 2)
    expected = (torch.arange(24) + 0.5) / 24
    assert torch.allclose(fine[1:-1, 5, 0], expected[1:-1], atol=1e-5)
    assert torch.allclose(fine[5, 1:-1, 1], expected[1:-1], atol=1e-5)


@pytest.mark.parametrize(("kind", "count"), [("add", 16), ("concat", 28), ("channel", 16), ("clip_only", 16)])
def test_every_fusion_gives_its_number_of_tokens(kind: str, count: int) -> None:
    fusion = Fusion(kind, 8, (4, 4), 6, (4, 3), 10)  # type: ignore[arg-type]
    out = fusion(tokens(), nn.Linear(8, 10))
    assert out.shape == (2, count, 10) and fusion.num_tokens == count


def test_add_is_the_sum_of_two_projections_where_both_encoders_look() -> None:
    fusion, clip = Fusion("add", 8, (4, 4), 6, (4, 4), 10), nn.Linear(8, 10)
    both = tokens(pose=16)
    assert both.pose is not None
    assert torch.allclose(fusion(both, clip), clip(both.clip) + fusion.projector(both.pose), atol=1e-6)


def test_concat_keeps_both_rows_of_tokens() -> None:
    fusion, clip = Fusion("concat", 8, (4, 4), 6, (4, 3), 10), nn.Linear(8, 10)
    both = tokens()
    out = fusion(both, clip)
    assert torch.equal(out[:, :16], clip(both.clip)) and torch.equal(out[:, 16:], fusion.projector(both.pose))


def test_clip_only_ignores_the_pose_tokens() -> None:
    fusion, clip = Fusion("clip_only", 8, (4, 4), None, None, 10), nn.Linear(8, 10)
    both = tokens()
    assert torch.equal(fusion(both, clip), fusion(ImageTokens(both.clip, None), clip))
    assert not list(fusion.parameters())


def test_a_fusion_without_pose_tokens_says_so() -> None:
    with pytest.raises(PoseRftError, match="needs a pose encoder"):
        Fusion("add", 8, (4, 4), None, None, 10)
    with pytest.raises(PoseRftError, match="needs pose tokens"):
        Fusion("add", 8, (4, 4), 6, (4, 3), 10)(ImageTokens(tokens().clip, None), nn.Linear(8, 10))


@pytest.mark.parametrize("kind", ["add", "concat", "channel"])
def test_a_batch_without_pictures_still_touches_every_projector(kind: str) -> None:
    """ZeRO aborts when one rank's batch leaves a trained parameter without gradient."""
    fusion, clip = Fusion(kind, 8, (4, 4), 6, (4, 3), 10), nn.Linear(8, 10)  # type: ignore[arg-type]
    out = fusion(tokens(batch=0), clip)
    assert len(out) == 0
    out.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in fusion.parameters())
