"""BlazePose as an encoder: tokens, folders, invariances of the lifter, and the policy that starts at its pose."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import mirror_rotations, sixd_to_matrix
from pose_rft.errors import PoseRftError
from pose_rft.policy import blazepose
from pose_rft.policy.blazepose import LANDMARKS, NUMBERS, BlazePose, centred, mirrored
from pose_rft.policy.hub import Base, create_policy, load_policy, load_pose_encoder, save_policy
from pose_rft.policy.params import PolicyParams
from pose_rft.policy.pose_head import IDENTITY_6D
from pose_rft.policy.processor import ImageParams
from tests.support.tiny_blazepose import MAPS, tiny_blazepose
from tests.support.tiny_policies import POLICY, tiny_policy

IMAGE = ImageParams(size=32, pose_size=256, box_scale=1.25)


def noise(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 256, 256, generator=torch.Generator().manual_seed(1))


def test_a_folder_needs_no_network_file(tmp_path: Path) -> None:
    encoder = tiny_blazepose()
    encoder.save_pretrained(tmp_path)
    loaded = load_pose_encoder(tmp_path)
    assert torch.equal(loaded.tokens(noise(2)), encoder.tokens(noise(2)))


@torch.no_grad()
def test_tokens_are_what_is_interpreted_of_what_was_observed() -> None:
    encoder = tiny_blazepose()
    seen = encoder.observe(noise(3))
    assert seen.shape == (3, 1, 2 * MAPS + len(LANDMARKS) * NUMBERS + 1)
    tokens = encoder.tokens(noise(3))
    assert tokens.shape == (3, 1, encoder.width) and encoder.grid == (1, 1)
    assert torch.equal(tokens, encoder.interpret(seen))
    one_by_one = torch.cat([encoder.tokens(picture[None]) for picture in noise(3)])
    assert torch.allclose(tokens, one_by_one, atol=1e-5)


@torch.no_grad()
def test_the_lifted_pose_of_a_token_is_the_lifters_and_holds_rotations() -> None:
    encoder = tiny_blazepose()
    seen = encoder.observe(noise(3))
    pose = encoder.pose(encoder.interpret(seen))
    assert torch.allclose(pose, encoder.lifter.both_ways(*encoder.parts(seen)), atol=1e-6)
    columns = pose.view(3, 24, 2, 3)
    assert torch.allclose(columns.norm(dim=-1), torch.ones(3, 24, 2), atol=1e-5)


@torch.no_grad()
def test_where_in_the_crop_and_how_large_a_person_is_does_not_change_the_pose() -> None:
    encoder = tiny_blazepose()
    landmarks = torch.randn(2, len(LANDMARKS), NUMBERS, generator=torch.Generator().manual_seed(2))
    moved = landmarks.clone()
    moved[..., :2] = 0.5 * moved[..., :2] + torch.tensor([0.3, -0.2])
    moved[..., 2] *= 0.5
    assert torch.allclose(centred(moved), centred(landmarks), atol=1e-2)
    maps = torch.zeros(2, 2, MAPS)
    assert torch.allclose(encoder.lifter(moved, maps), encoder.lifter(landmarks, maps), atol=1e-2)


@torch.no_grad()
def test_a_mirror_image_is_lifted_to_the_mirrored_pose() -> None:
    lifter = tiny_blazepose().lifter
    lifter.mean_pose.copy_(torch.tensor(IDENTITY_6D).repeat(24))
    landmarks = torch.randn(2, len(LANDMARKS), NUMBERS, generator=torch.Generator().manual_seed(2))

    maps = torch.rand(2, 2, MAPS, generator=torch.Generator().manual_seed(3))

    def both(lift: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        seen = ((landmarks, maps), (mirrored(landmarks), maps.flip(1)))
        poses = [sixd_to_matrix(lift(*one).view(2, 24, 6)) for one in seen]
        return [mirror_rotations(poses[0]), poses[1]]

    assert torch.allclose(*both(lifter.both_ways), atol=1e-5)
    assert not torch.allclose(*both(lifter), atol=1e-3)


@torch.no_grad()
def test_keypoints_are_the_landmarks_of_the_same_name() -> None:
    encoder = tiny_blazepose()
    found, landmarks = encoder.keypoints(noise(2)), encoder.landmarks(noise(2))
    knee = LANDMARKS.index("left_knee")
    assert torch.equal(found[:, SMPL24.index("left_knee"), :2], landmarks.points[:, knee, :2])
    assert torch.equal(found[:, SMPL24.index("left_knee"), 2], landmarks.visibility[:, knee])
    assert (found[:, SMPL24.index("spine1"), 2] == 0).all()


@pytest.mark.parametrize("prior", ["mean", "encoder"])
def test_an_untrained_policy_answers_with_its_prior(base: Base, prior: str, tmp_path: Path) -> None:
    encoder = tiny_blazepose()
    params = PolicyParams.model_validate(POLICY | {"pose_prior": prior})
    model, processor = create_policy(base, encoder, params, IMAGE, "gaussian")
    with torch.no_grad():
        tokens = model.encode_images(torch.randn(2, 3, 32, 32), noise(2))
        texts = [processor.encode("what pose?", processor.ANSWER, has_image) for has_image in (True, False, True)]
        ids = torch.nn.utils.rnn.pad_sequence([text.input_ids for text in texts], batch_first=True)
        out = model(ids, image_tokens=tokens)
        mean = model.pose_distribution(out.hidden_states[:, 5], out.pose_start).mean
    lifted, middle = encoder.pose(tokens.pose), model.pose_head.mean_pose
    expected = torch.stack([lifted[0], middle, lifted[1]]) if prior == "encoder" else middle.expand(3, -1)
    assert torch.allclose(mean, expected, atol=1e-6)
    save_policy(tmp_path / "policy", model, processor)
    loaded, _ = load_policy(tmp_path / "policy")
    assert loaded.config.pose_prior == prior
    assert torch.allclose(loaded(ids, image_tokens=tokens).pose_start, out.pose_start)


def test_an_encoder_that_reads_no_pose_is_no_prior(base: Base) -> None:
    with pytest.raises(PoseRftError, match="pose_prior"):
        tiny_policy(base, pose_prior="encoder")


def test_rotations_of_a_pose_are_proper() -> None:
    with torch.no_grad():
        encoder = tiny_blazepose()
        pose = encoder.pose(encoder.tokens(noise(1)))
    assert torch.allclose(torch.det(sixd_to_matrix(pose.view(24, 6))), torch.ones(24), atol=1e-5)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_what_is_seen_in_a_turned_crop_is_turned_back(turns: int) -> None:
    crop = torch.zeros(1, 1, 8, 8)
    crop[0, 0, 2, 6] = 1.0
    row, column = torch.rot90(crop, turns, (2, 3))[0, 0].nonzero()[0].tolist()
    seen = torch.zeros(1, len(LANDMARKS) * NUMBERS + 1)
    seen[0, 0], seen[0, 1] = (column + 0.5) / 4 - 1, (row + 0.5) / 4 - 1
    seen[0, 5], seen[0, 6] = seen[0, 0], seen[0, 1]  # metres lie along the same axes
    back = blazepose._turned_back(seen, turns)[0]
    expected = torch.tensor([(6 + 0.5) / 4 - 1, (2 + 0.5) / 4 - 1])
    assert torch.allclose(back[:2], expected) and torch.allclose(back[5:7], expected)


@torch.no_grad()
def test_a_mirrored_crop_is_seen_as_the_mirror_of_the_crop() -> None:
    encoder = tiny_blazepose()
    seen = encoder.observe(noise(3))
    assert torch.allclose(encoder.observe(noise(3).flip(-1)), encoder.mirror(seen), atol=1e-5)


class OnlyUpright(BlazePose):
    """Finds somebody, with the head up, only where the bright half of the crop is the upper one."""

    def _look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bright_above = pixels[:, :, :128].mean((1, 2, 3)) > pixels[:, :, 128:].mean((1, 2, 3)) + 0.5
        points = torch.zeros(len(pixels), len(LANDMARKS), NUMBERS)
        points[..., 3] = 0.9
        for side in ("left", "right"):
            points[:, LANDMARKS.index(f"{side}_shoulder"), 1] = -0.5
            points[:, LANDMARKS.index(f"{side}_hip"), 1] = 0.5
        seen = torch.cat([points.flatten(1), torch.where(bright_above, 0.95, 0.1)[:, None]], 1)
        return seen, torch.ones(len(pixels), MAPS)


@torch.no_grad()
def test_somebody_upside_down_or_lying_is_found_and_lies_as_in_the_crop() -> None:
    encoder = OnlyUpright(tiny_blazepose().config).eval()
    upright = torch.zeros(1, 3, 256, 256)
    upright[:, :, :128] = 2.0
    crops = torch.cat([torch.rot90(upright, turns, (2, 3)) for turns in range(4)])
    found = encoder.landmarks(crops)
    assert (found.score > 0.9).all()
    shoulder = found.points[:, LANDMARKS.index("left_shoulder"), :2]
    expected = torch.tensor([[0.0, -0.5], [-0.5, 0.0], [0.0, 0.5], [0.5, 0.0]])
    assert torch.allclose(shoulder, expected, atol=1e-6)


@torch.no_grad()
def test_without_maps_the_lifter_goes_by_the_landmarks_alone() -> None:
    lifter = tiny_blazepose().lifter
    landmarks = torch.randn(2, len(LANDMARKS), NUMBERS, generator=torch.Generator().manual_seed(2))
    plain = lifter(landmarks, torch.zeros(2, 2, MAPS))
    assert not torch.allclose(lifter(landmarks, torch.ones(2, 2, MAPS)), plain)
    lifter.read_map[1].weight.fill_(7.0)
    assert torch.equal(lifter(landmarks, torch.zeros(2, 2, MAPS)), plain)


@torch.no_grad()
def test_an_encoder_of_half_precision_looks_at_whole_pixels() -> None:
    """A policy that was trained in bfloat16 predicts, too, and what it finds are plain numbers."""
    encoder = tiny_blazepose()
    crops = torch.rand(2, 3, 256, 256)
    whole = encoder.glance(crops).points
    half = encoder.to(torch.bfloat16).glance(crops).points
    assert half.dtype == torch.float32 and (half - whole).abs().max() < 0.1 * whole.abs().max()
    assert torch.isfinite(encoder.interpret(encoder.observe(crops)).float()).all()
