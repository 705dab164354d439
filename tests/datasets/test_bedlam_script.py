from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import semantic_frame
from pose_rft.captions.describe import describe_pose
from pose_rft.datasets.bedlam import script as bedlam_script
from pose_rft.datasets.bedlam.script import captions_of, distinct_poses, farthest_points, well_seen
from pose_rft.seeds import numpy_rng


def plain_farthest(points: np.ndarray, count: int) -> list[int]:
    """The textbook's algorithm."""
    points = points.astype(np.int64)
    nearest, chosen = np.square(points - points[0]).sum(1), [0]
    while len(chosen) < count and nearest.max() > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(1))
    return chosen


@pytest.mark.parametrize("pool", [1, 7, 512])
@pytest.mark.parametrize("spread", [2, 200])  # many equal distances, and few
def test_the_selection_is_the_plain_algorithms(monkeypatch, pool: int, spread: int) -> None:
    monkeypatch.setattr(bedlam_script, "POOL", pool)
    monkeypatch.setattr(bedlam_script, "ROWS", 100)
    points = np.rint(np.random.default_rng(pool).normal(0, spread, (700, 12))).astype(np.float32)
    assert farthest_points(points, 90).tolist() == plain_farthest(points, 90)


def test_copies_are_chosen_once() -> None:
    points = np.repeat(np.arange(5, dtype=np.float32)[:, None] * 10, 40, axis=0)
    assert sorted(farthest_points(points, 100)) == [0, 40, 80, 120, 160]


def test_numbers_that_float32_cannot_add_exactly_are_refused() -> None:
    with pytest.raises(ValueError, match="below"):
        farthest_points(np.full((3, 2), 4000, np.float32), 2)


def test_all_kinds_of_poses_are_kept_when_one_kind_is_frequent(tiny_folder: Path) -> None:
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.02, (300, 22, 3))  # nearly the same stance
    rare = [17, 120, 250]
    for row, joint in zip(rare, (16, 1, 18), strict=True):
        poses[row, joint] += (0, 0, 1.5)
    kept = distinct_poses(poses, tiny_folder, 12)
    assert len(kept) == 12 and set(rare) <= set(kept) and sorted(kept) == kept.tolist()


def test_the_heading_does_not_make_a_pose_another(tiny_folder: Path) -> None:
    pose = np.random.default_rng(1).normal(0, 0.4, (22, 3))
    turned = np.tile(pose, (6, 1, 1))
    for i, row in enumerate(turned):  # the camera's y axis is vertical
        row[0] = (Rotation.from_euler("y", 60 * i, degrees=True) * Rotation.from_rotvec(pose[0])).as_rotvec()
    kept = distinct_poses(turned, tiny_folder, 6)
    assert len(kept) <= 3  # but for rounding to 2 mm, all are one


def people(*boxes: tuple[float, float, float], depth=(), image=None):
    """Square boxes (x, y, side) px as 22 joints on their rims."""
    rim = np.linspace(0, 2 * np.pi, 22)
    unit = np.stack([np.cos(rim), np.sin(rim)], 1) / 2 + 0.5
    unit[0], unit[1] = 0, 1
    points = np.stack([unit * side + (x, y) for x, y, side in boxes])
    sizes = np.tile((1000.0, 800.0), (len(boxes), 1))
    return points, sizes, np.array(depth or [5.0] * len(boxes)), np.zeros(len(boxes), int) if image is None else image


def test_someone_behind_another_is_not_described_but_the_nearer_one_is() -> None:
    crowd = people((100, 100, 300), (200, 100, 300), (700, 100, 200), depth=[4.0, 3.0, 2.0])
    assert well_seen(*crowd, 16, 0, 0.3).tolist() == [False, True, True]
    assert well_seen(*crowd, 16, 0, 0.7).tolist() == [True, True, True]
    apart = (*crowd[:3], np.array([0, 1, 1]))
    assert well_seen(*apart, 16, 0, 0.3).all()  # in another picture


def test_small_people_and_people_out_of_the_picture_are_not_described() -> None:
    crowd = people((100, 100, 90), (100, 300, 300), (-200, 100, 300))
    assert well_seen(*crowd, 16, 100, 1.0).tolist() == [False, True, False]
    assert well_seen(*crowd, 16, 99, 1.0).tolist() == [True, True, False]  # 90 px x1.1
    assert well_seen(*crowd, 3, 0, 1.0).all()


def test_of_ten_people_only_those_that_one_nearer_person_covers_are_left_out() -> None:
    rng = np.random.default_rng(3)
    boxes = [(float(x), float(y), float(s)) for x, y, s in rng.uniform((0, 0, 80), (700, 500, 300), (10, 3))]
    depth = rng.uniform(2, 9, 10).tolist()
    found = well_seen(*people(*boxes, depth=depth), 0, 0, 0.3)

    def covered(mine, other) -> float:
        sides = [min(m + mine[2], o + other[2]) - max(m, o) for m, o in zip(mine[:2], other[:2], strict=True)]
        return max(sides[0], 0) * max(sides[1], 0) / mine[2] ** 2

    expected = [
        max((covered(boxes[i], boxes[j]) for j in range(10) if depth[j] < depth[i]), default=0) <= 0.3
        for i in range(10)
    ]
    assert found.tolist() == expected and 0 < sum(expected) < 10


def test_captions_together_are_those_of_each_pose_alone(tiny_folder: Path) -> None:
    poses = np.random.default_rng(4).normal(0, 0.4, (150, 22, 3)).astype(np.float32)
    poses[:, 0] += (np.pi, 0, 0)  # upright in a camera frame
    keys = [f"k{i}" for i in range(len(poses))]
    together = captions_of(poses, keys, tiny_folder, 3)
    rest = bedlam_script._rest_joints(tiny_folder)
    for key, pose in list(zip(keys, poses, strict=True))[::5]:
        rotations = np.tile(np.eye(3), (24, 1, 1))
        rotations[:22] = Rotation.from_rotvec(pose.astype(np.float64)).as_matrix()
        rotations = semantic_frame(torch.from_numpy(rotations), "camera").numpy()
        alone = describe_pose(rotations, rest, numpy_rng(0, "bedlam captions", key), 3)
        assert [caption.text for caption in together[key]] == alone
        assert len(set(alone)) == 3
