"""Pose encoders: shapes, keypoints, folders, and that the small one learns."""

from pathlib import Path

import pytest
import torch
from transformers import VitPoseBackboneConfig, VitPoseConfig

from pose_rft.body.joints import SMPL24
from pose_rft.errors import PoseRftError
from pose_rft.policy.config import Hmr2VitConfig
from pose_rft.policy.hub import load_pose_encoder
from pose_rft.policy.params import PoseEncoderParams
from pose_rft.policy.pose_encoder import ConvVit, Hmr2Vit, VitPoseEncoder, create_conv_vit, soft_argmax
from tests.support.tiny_policies import tiny_encoder


def sample_sized() -> ConvVit:
    sizes = {"width": 32, "layers": 2, "heads": 4}
    return create_conv_vit(PoseEncoderParams.model_validate({"kind": "conv_vit", "conv_vit": sizes}), 96)


def test_the_samples_encoder_has_36_tokens_with_all_keypoints_and_a_million_parameters() -> None:
    encoder = sample_sized()
    assert encoder.grid == (6, 6) and encoder.width == 128 + 3 * 24
    assert 0.9e6 < sum(parameter.numel() for parameter in encoder.parameters()) < 1.1e6
    pixels = torch.randn(2, 3, 96, 96)
    assert encoder.tokens(pixels).shape == (2, 36, 128 + 3 * 24)
    assert encoder.heatmaps(encoder.features(pixels)).shape == (2, 24, 24, 24)
    assert encoder.keypoints(pixels).shape == (2, 24, 3)


def test_each_token_owns_its_patch_of_the_heatmaps() -> None:
    encoder = sample_sized()
    tokens = torch.zeros(1, 36, 128)
    tokens[0, 8] = 1.0  # row 1, column 2
    with torch.no_grad():
        encoder.heatmap.weight.fill_(1.0)
        encoder.heatmap.bias.zero_()
        lit = encoder.heatmaps(tokens)[0, 5] > 0
    rows, columns = lit.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 7, 8, 11)


def test_soft_argmax_reads_the_centre_of_a_peaked_cell() -> None:
    logits = torch.zeros(1, 1, 24, 24)
    logits[0, 0, 3, 20] = 50.0
    x, y, confidence = soft_argmax(logits)[0, 0].tolist()
    assert abs(x - ((20.5) / 24 * 2 - 1)) < 1e-4 and abs(y - (3.5 / 24 * 2 - 1)) < 1e-4 and confidence > 0.99
    flat = soft_argmax(torch.zeros(1, 1, 24, 24))[0, 0]
    assert flat[:2].abs().max() < 1e-5 and flat[2] < 0.02


def test_the_small_encoder_learns_where_a_dot_is() -> None:
    torch.manual_seed(0)
    encoder = tiny_encoder().train()
    optimiser = torch.optim.AdamW(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        at = torch.randint(4, 28, (8, 2))
        pixels = torch.zeros(8, 3, 32, 32)
        for i, (x, y) in enumerate(at.tolist()):
            pixels[i, :, y - 3 : y + 4, x - 3 : x + 4] = 2.0
        target = (at + 0.5) / 16 - 1
        loss = (encoder.keypoints(pixels)[:, 0, :2] - target).abs().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_an_encoder_survives_its_folder(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    encoder.train()(torch.randn(4, 3, 32, 32))  # move the batch statistics
    encoder.eval().save_pretrained(tmp_path)
    loaded = load_pose_encoder(tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    assert isinstance(loaded, ConvVit)
    assert torch.allclose(loaded.keypoints(pixels), encoder.keypoints(pixels), atol=1e-6)


def test_vitpose_names_the_joints_that_coco_has_and_doubts_the_rest() -> None:
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], hidden_size=32, num_hidden_layers=1, num_attention_heads=2, out_indices=[1]
    )
    encoder = VitPoseEncoder(VitPoseConfig(backbone_config=backbone, num_labels=17)).eval()
    found = encoder.keypoints(torch.randn(2, 3, 64, 64))
    assert found.shape == (2, 24, 3)
    assert (found[:, SMPL24.index("left_knee"), 2] > 0).all()
    assert (found[:, SMPL24.index("spine1"), 2] == 0).all()
    assert found[..., 0].abs().max() <= 0.75  # the middle columns


def test_an_encoder_without_keypoints_says_so() -> None:
    config = Hmr2VitConfig(image_size=(64, 48), hidden_size=32, num_hidden_layers=1)
    with pytest.raises(PoseRftError, match="no 2D keypoints"):
        Hmr2Vit(config).keypoints(torch.zeros(1, 3, 64, 64))


def test_sizes_are_checked() -> None:
    with pytest.raises(PoseRftError, match="multiple of 16"):
        create_conv_vit(
            PoseEncoderParams.model_validate({"kind": "conv_vit", "conv_vit": {"width": 8, "layers": 1, "heads": 1}}),
            50,
        )
    with pytest.raises(PoseRftError, match="conv_vit` is missing"):
        create_conv_vit(PoseEncoderParams(kind="conv_vit"), 96)
