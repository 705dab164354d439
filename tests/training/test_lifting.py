"""The lifter's training: consistent augmentation, observations that are kept, and that it learns."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pose_rft.batches.feature_cache import interpreted
from pose_rft.batches.observed import observed
from pose_rft.batches.samples import Samples
from pose_rft.body.rotations import mirror_rotations
from pose_rft.policy.blazepose import LANDMARKS, NUMBERS
from pose_rft.policy.params import LifterTrainingParams
from pose_rft.policy.processor import ImageParams
from pose_rft.training import lifting
from pose_rft.training.lifting import LiftingSet
from tests.support.tiny_blazepose import MAPS, tiny_blazepose
from tests.support.training_fakes import Chain, image_record, samples

torch.set_num_threads(1)
IMAGE = ImageParams(size=32, pose_size=256, box_scale=1.25)


class Body(Chain):
    def to(self, device: object) -> "Body":
        return self


@pytest.fixture
def coco(tmp_path: Path) -> Samples:
    return samples("coco/train", [image_record(i) for i in range(6)], tmp_path / "samples")


def people(coco: Samples, cache: Path, flip: bool = False) -> LiftingSet:
    seen = np.array(observed(tiny_blazepose(), coco, IMAGE, flip, cache))
    seen[..., -1] = 1.0  # the tiny network finds nobody
    return lifting.lifting_set(tiny_blazepose(), coco, seen, Body(), flip)  # type: ignore[arg-type]


def test_observations_are_the_encoders_and_outlive_another_lifter(
    coco: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_blazepose()
    seen = observed(encoder, coco, IMAGE, False, tmp_path / "observed")
    mirrored = observed(encoder, coco, IMAGE, True, tmp_path / "observed")
    assert seen.shape == (6, 1, 2 * MAPS + len(LANDMARKS) * NUMBERS + 1) and not np.array_equal(seen, mirrored)
    (points, maps), (flipped, swapped) = (encoder.parts(torch.from_numpy(np.array(x))) for x in (seen, mirrored))
    assert torch.equal(maps.flip(1), swapped)
    left, right = LANDMARKS.index("left_knee"), LANDMARKS.index("right_knee")
    assert torch.equal(flipped[:, left, 0], -points[:, right, 0]) and torch.equal(
        flipped[:, left, 1], points[:, right, 1]
    )
    assert torch.equal(flipped[:, left, 5], -points[:, right, 5]) and torch.equal(
        flipped[:, left, 3], points[:, right, 3]
    )
    monkeypatch.setattr(type(encoder), "observe", None)
    with torch.no_grad():
        encoder.lifter.leave.bias += 1.0
    assert np.array_equal(observed(encoder, coco, IMAGE, False, tmp_path / "observed"), seen)
    assert interpreted(encoder, seen).shape == (6, 1, encoder.width)


def test_another_network_observes_anew(coco: Samples, tmp_path: Path) -> None:
    encoder = tiny_blazepose()
    seen = observed(encoder, coco, IMAGE, False, tmp_path / "observed")
    with torch.no_grad():
        next(encoder.network.parameters()).add_(0.5)
    assert not np.array_equal(observed(encoder, coco, IMAGE, False, tmp_path / "observed"), seen)


def test_a_picture_of_several_samples_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [0, 1, 0, 2, 1, 0]
    records = [replace(image_record(i), image=image_record(picture).image) for i, picture in enumerate(shown)]
    encoder, looks = tiny_blazepose(), []
    look = type(encoder).observe
    monkeypatch.setattr(type(encoder), "observe", lambda self, x: (looks.append(len(x)), look(self, x))[1])
    seen = observed(encoder, samples("coco/train", records, tmp_path / "several"), IMAGE, False, tmp_path / "observed")
    assert sum(looks) == 3
    alone = samples("coco/train", [image_record(i) for i in range(3)], tmp_path / "alone")
    assert np.array_equal(seen, np.array(observed(encoder, alone, IMAGE, False, tmp_path / "observed"))[shown])


def test_whom_the_network_did_not_find_is_left_out(coco: Samples, tmp_path: Path) -> None:
    seen = np.array(observed(tiny_blazepose(), coco, IMAGE, False, tmp_path / "observed"))
    seen[..., -1] = 1.0
    seen[2, 0, -1] = 0.1
    data = lifting.lifting_set(tiny_blazepose(), coco, seen, Body(), False)  # type: ignore[arg-type]
    assert data.keys == tuple(key for row, key in enumerate(coco.keys) if row != 2)


def test_mirrored_people_have_mirrored_poses_and_joints(coco: Samples, tmp_path: Path) -> None:
    plain, mirrored = people(coco, tmp_path / "observed"), people(coco, tmp_path / "observed", flip=True)
    assert torch.allclose(mirror_rotations(plain.rotations), mirrored.rotations)
    assert torch.allclose(Body().joints(mirrored.rotations), mirrored.joints, atol=1e-6)


def test_turning_keeps_landmarks_rotations_and_joints_of_one_person_together(coco: Samples, tmp_path: Path) -> None:
    data = people(coco, tmp_path / "observed")
    generator = torch.Generator().manual_seed(0)
    landmarks, rotations, joints = lifting.turned(data.landmarks, data.rotations, data.joints, generator)
    assert torch.allclose(Body().joints(rotations), joints, atol=1e-5)
    turn = rotations[:, 0] @ data.rotations[:, 0].mT
    assert torch.allclose(data.landmarks[..., 5:] @ turn.mT, landmarks[..., 5:], atol=1e-5)
    assert torch.allclose(data.landmarks[..., :3] @ turn.mT, landmarks[..., :3], atol=1e-5)
    assert torch.allclose(turn[:, 2], torch.tensor([0.0, 0.0, 1.0]).expand(6, 3), atol=1e-6)  # in the picture plane
    assert torch.equal(landmarks[..., 3:5], data.landmarks[..., 3:5])


def test_what_a_line_cuts_off_is_marked_as_unseen_and_the_rest_barely_moves() -> None:
    landmarks = torch.randn(400, len(LANDMARKS), NUMBERS, generator=torch.Generator().manual_seed(1))
    landmarks[..., 3:5] = 0.95
    spoiled = lifting.spoiled(landmarks, torch.Generator().manual_seed(2))
    moved = (spoiled[..., :2] - landmarks[..., :2]).norm(dim=-1)
    unseen = spoiled[..., 3] < 0.5
    share = unseen.any(1).float().mean()
    assert abs(share - lifting.CUT) < 4 * math.sqrt(lifting.CUT / 400)
    assert moved[~unseen].mean() < 0.25 * moved[unseen].mean()
    assert not unseen.all(1).any()


def test_maps_start_at_their_own_mean_and_deviation_and_those_that_are_missing_do_not_count(
    coco: Samples, tmp_path: Path
) -> None:
    data, lifter = people(coco, tmp_path / "observed"), tiny_blazepose().lifter
    data.maps.copy_(3 + 2 * torch.randn(data.maps.shape, generator=torch.Generator().manual_seed(3)))
    data.maps[0] = 0
    lifting.set_means(lifter, data.rotations[0], [data])
    shown = data.maps[1:].float().flatten(0, 1)
    assert torch.allclose(lifter.maps_mean, shown.mean(0), atol=1e-5)
    assert torch.allclose(lifter.maps_scale, shown.std(0) + lifting.SMALLEST_DEVIATION, atol=1e-5)


def test_the_lifter_learns_and_resumes_to_the_same_weights(coco: Samples, tmp_path: Path) -> None:
    data = {"coco": people(coco, tmp_path / "observed")}
    params = LifterTrainingParams(steps=60, batch=16, learning_rate=5e-3, weight_decay=0.0, rotation=2.0, joints=10.0)

    def trained(scratch: Path) -> tuple[torch.Tensor, list[float]]:
        encoder = tiny_blazepose()
        log = lifting.train(encoder.lifter, data, Body(), params, scratch, 0)  # type: ignore[arg-type]
        return encoder.lifter.leave.weight.detach().clone(), log["loss"].to_list()

    once, losses = trained(tmp_path / "a")
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    again, _ = trained(tmp_path / "a")  # finished already: nothing but its last checkpoint is read
    assert torch.equal(once, again)
