from pathlib import Path

import numpy as np
import pytest

from pose_rft.sample.people import Studio, fixed_view, framed_view, look_at, orbit


@pytest.fixture(scope="module")
def studio(standin_folder: Path) -> Studio:
    return Studio(standin_folder)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_camera_in_front_sees_the_left_hand_on_the_right() -> None:
    R, t = look_at(orbit(np.zeros(3), 0, 0, 4.0), np.zeros(3))
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    left, above, nearer = (R @ point + t for point in np.eye(3))
    assert left[0] > 0 and above[1] < 0 and nearer[2] < 4


def test_people_stand_on_the_floor_where_they_are_put(studio: Studio) -> None:
    person = studio.somebody(rng(), at=(0.4, -0.3))
    assert abs(person.vertices[:, 1].min()) < 1e-5
    np.testing.assert_allclose(person.joints[0, [0, 2]], (0.4, -0.3), atol=1e-6)


def test_camera_frame_parameters_give_the_seen_body(studio: Studio) -> None:
    person = studio.somebody(rng(1), at=(0.2, 0.1))
    view = framed_view(rng(2), [person], (96, 128))
    seen = studio.shoot(rng(3), [person], view).seen[0]
    vertices, joints = studio.body().vertices(seen.rotations, person.identity.betas, seen.transl)
    np.testing.assert_allclose(vertices, seen.vertices, atol=2e-4)  # skinning weights sum to 1 within 1e-5
    np.testing.assert_allclose(joints, seen.joints, atol=1e-9)
    np.testing.assert_allclose(view.project(joints), seen.joints2d, atol=1e-9)


@pytest.mark.parametrize("size", [(128, 96), (96, 128)])
def test_people_fill_the_share_asked_for_and_stay_inside(studio: Studio, size: tuple[int, int]) -> None:
    for seed in range(8):
        people = [studio.somebody(rng(seed), at=(x, 0.0)) for x in ((0.0,) if seed % 2 else (-0.6, 0.6))]
        view = framed_view(rng(seed), people, size, fill=(0.6, 0.9))
        points = np.concatenate([view.project(view.to_camera(person.vertices)) for person in people])
        share = ((points.max(0) - points.min(0)) / size).max()
        assert 0.58 < share < 0.93
        assert (points > -2).all() and (points < np.array(size) + 2).all()


def test_the_mask_is_where_the_person_changes_the_picture(studio: Studio) -> None:
    person = studio.somebody(rng(5))
    shot = studio.shoot(rng(6), [person], framed_view(rng(7), [person], (96, 96)), noise=0.0)
    inside = shot.seen[0].joints2d.astype(int)
    hits = [shot.seen[0].mask[y, x] for x, y in inside if 0 <= x < 96 and 0 <= y < 96]
    assert np.mean(hits) > 0.9
    assert shot.image.dtype == np.uint8 and shot.image.shape == (96, 96, 3)


def test_the_nearer_person_covers_the_farther_one(studio: Studio) -> None:
    near, far = studio.somebody(rng(8), at=(0.0, 0.8)), studio.somebody(rng(9), at=(0.05, -0.8))
    view = fixed_view((96, 96), 0, 5, 5.0)
    alone = studio.shoot(rng(0), [far], view).seen[0].mask
    behind, front = (seen.mask for seen in studio.shoot(rng(0), [far, near], view).seen)
    assert not (behind & front).any()
    assert behind.sum() < alone.sum() and front.sum() > 100


def test_the_same_generator_takes_the_same_picture(studio: Studio) -> None:
    def picture() -> np.ndarray:
        own = rng(11)
        person = studio.somebody(own)
        return studio.shoot(own, [person], framed_view(own, [person], (64, 64)), occluder=0.5).image

    np.testing.assert_array_equal(picture(), picture())
