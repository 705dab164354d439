from pathlib import Path

import numpy as np
import pytest

from pose_rft.body.joints import SMPL24
from pose_rft.sample.hard_poses import GROUPS
from pose_rft.sample.key_poses import KEY_POSES, key_rotations
from pose_rft.sample.people import Shot, Studio
from pose_rft.sample.varied import NEAREST, TRAINING, is_labelled, varied_shot
from pose_rft.sample.write_pw3d import HARD

HEAD, PELVIS = SMPL24.index("head"), SMPL24.index("pelvis")


@pytest.fixture(scope="module")
def studio(standin_folder: Path) -> Studio:
    return Studio(standin_folder)


def shots(studio: Studio, difficulty, count: int) -> list[Shot]:
    return [varied_shot(np.random.default_rng([3, i]), studio, (96, 96), difficulty) for i in range(count)]


@pytest.fixture(scope="module")
def training(studio: Studio) -> list[Shot]:
    return shots(studio, TRAINING, 30)


def torso(shot: Shot) -> float:
    """Height of the head over the pelvis, parts of their distance."""
    joints = shot.seen[0].person.joints
    along = joints[HEAD] - joints[PELVIS]
    return float(along[1] / np.linalg.norm(along))


def outside(shot: Shot) -> float:
    points = shot.seen[0].joints2d
    return float(((points < 0) | (points >= 96)).any(1).mean())


def test_labels_are_the_body_that_is_drawn(training: list[Shot], studio: Studio) -> None:
    hits = []
    for shot in training:
        for seen in shot.seen:
            vertices, joints = studio.body().vertices(seen.rotations, seen.person.identity.betas, seen.transl)
            np.testing.assert_allclose(joints, seen.joints, atol=1e-4)
            np.testing.assert_allclose(vertices, seen.vertices, atol=1e-3)
            assert seen.vertices[:, 2].min() > NEAREST - 0.3
        alone = len(shot.seen) == 1
        points = shot.seen[0].joints2d.astype(int)
        hits += [shot.seen[0].mask[y, x] for x, y in points if alone and 0 <= x < 96 and 0 <= y < 96]
    assert np.mean(hits) > 0.75  # props hide some


def test_training_pictures_vary_as_photographs_do(training: list[Shot]) -> None:
    tilts = np.array([torso(shot) for shot in training])
    assert (tilts > 0.8).any() and (np.abs(tilts) < 0.4).any() and (tilts < -0.5).any()
    assert any(len(shot.seen) > 1 for shot in training)
    assert any(outside(shot) > 0.15 for shot in training)
    pitch = np.rad2deg([np.arcsin(shot.view.R[2, 1]) for shot in training])
    assert pitch.min() < -35 and pitch.max() - pitch.min() > 60
    assert sum(is_labelled(shot.seen[0]) for shot in training) >= 27


def test_the_hard_sequences_are_what_their_names_say(studio: Studio) -> None:
    found = {name: shots(studio, difficulty, 8) for name, difficulty in HARD.items()}
    assert np.median([abs(torso(shot)) for shot in found["lying"]]) < 0.6
    assert np.median([torso(shot) for shot in found["head down"]]) < -0.3
    assert np.mean([outside(shot) for shot in found["cut"]]) > 0.15
    assert all(len(shot.seen) > 1 for shot in found["hidden"][:1]) or len(found["hidden"][1].seen) > 1
    pitch = [abs(np.rad2deg(np.arcsin(shot.view.R[2, 1]))) for shot in found["steep"]]
    assert np.median(pitch) > 15


def test_hard_key_poses_are_others_than_those_of_the_test_sets() -> None:
    known = np.stack([key_rotations(key) for key in KEY_POSES.values()])
    for group in GROUPS.values():
        for name, key in group.items():
            rotations = key_rotations(key)
            np.testing.assert_allclose(
                rotations @ rotations.transpose(0, 2, 1), np.eye(3)[None].repeat(24, 0), atol=1e-9
            )
            assert np.abs(known - rotations).max((1, 2, 3)).min() > 0.1, name
