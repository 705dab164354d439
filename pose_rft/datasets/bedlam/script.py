"""BEDLAM-Script: selects people of BEDLAM and generates their captions (naver/poseembroider, process_bedlam).

The original recipe keeps people who are clearly visible (few joints outside the image, large, not hidden by a nearer
person), selects poses by farthest-point sampling on the positions of 22 joints with the heading removed (50,000 for
training, 10,000 for validation), then captions them. It takes about 35 hours in one process, 13 for the selection.
Here every step is vectorised. Each selection round picks from a pool of the farthest poses for as long as no pose
outside the pool can be farther, then updates all distances with one matrix product.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import semantic_frame
from pose_rft.body.model_file import find_model_file, read_model_file
from pose_rft.captions.describe import describe_poses
from pose_rft.captions.geometry import pose_bodies
from pose_rft.record import Caption
from pose_rft.seeds import numpy_rng

BODY_JOINTS = 22
BOX_SCALE = 1.1
CAPTION_SEED = 0  # captions are part of the release, so the data seed does not change their wording
# Positions are rounded to steps of 2 mm, so every sum below is an integer that float32 represents exactly and the
# selection does not depend on the order of summation.
STEPS_PER_METRE = 500
LARGEST_EXACT = 2.0**23
POOL = 512  # candidate poses per round, before all distances are updated
ROWS = 8192  # points per block when distances are updated
POSES = 4096  # poses per block when joints are computed


def well_seen(
    points: np.ndarray,
    sizes: np.ndarray,
    depths: np.ndarray,
    images: np.ndarray,
    joints_inside: int,
    smallest_box: float,
    largest_overlap: float,
) -> np.ndarray:
    """Returns which people (N,) bool are visible enough to be captioned.

    Args:
        points: (N, 22, 2) px, body joints; sizes: (N, 2) px, width and height of the image; depths: (N,) metres;
        images: (N,) index of the image that a person is in.
        joints_inside: fewest joints inside the image. smallest_box: px, for the longer side of the joints' box x1.1.
        largest_overlap: largest share of the joints' box that the box of one nearer person may cover.
    """
    low, high = points.min(axis=1), points.max(axis=1)
    inside = ((points >= 0) & (points < sizes[:, None])).all(axis=2).sum(axis=1)
    large = BOX_SCALE * (high - low).max(axis=1) >= smallest_box
    hidden = np.zeros(len(points))
    order = np.argsort(images, kind="stable")
    for step in range(1, len(order)):
        first, second = order[:-step], order[step:]
        together = images[first] == images[second]
        if not together.any():
            break
        first, second = first[together], second[together]
        common = (np.minimum(high[first], high[second]) - np.maximum(low[first], low[second])).clip(min=0).prod(axis=1)
        for mine, other in ((first, second), (second, first)):
            share = common / (high[mine] - low[mine]).prod(axis=1).clip(min=1e-9)
            hidden[mine] = np.maximum(hidden[mine], np.where(depths[other] < depths[mine], share, 0))
    return (inside >= joints_inside) & large & (hidden <= largest_overlap)


def distinct_poses(poses: np.ndarray, body_model: Path, count: int) -> np.ndarray:
    """Returns the rows, ascending, of up to `count` poses that differ as much as possible.

    Args:
        poses: (N, 22, 3) axis-angle radians, root in the camera frame.
    """
    rest = _rest_joints(body_model)
    blocks = [poses[start : start + POSES] for start in range(0, len(poses), POSES)]
    joints = np.concatenate([pose_bodies(heading_free(block), rest).joints[:, :BODY_JOINTS] for block in blocks])
    points = np.rint(joints.reshape(len(joints), -1) * STEPS_PER_METRE).astype(np.float32)
    return np.sort(farthest_points(points, count))


def farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Farthest-point selection: each choice is as far as possible from all earlier ones; the first is row 0.

    The result equals that of the plain algorithm (ties go to the lowest row), which is quadratic because it visits all
    points for every choice. Selection ends early when only duplicates of chosen points are left.

    Args:
        points: (N, D) float32, integers with squared lengths below 2**23, so that distances are exact.
    Returns:
        (up to count,) rows in the order of selection.
    Raises:
        ValueError: there are no points, or a squared length is too large.
    """
    squares = np.square(points).sum(axis=1)
    if len(points) == 0 or squares.max() >= LARGEST_EXACT:
        raise ValueError("expected points with squared lengths below 2**23")
    nearest = np.full(len(points), np.inf, np.float32)  # squared distance to the nearest chosen point
    chosen: list[int] = []
    new = [0]
    while new:
        chosen += new
        for start in range(0, len(points), ROWS):
            part = slice(start, start + ROWS)
            nearest[part] = np.minimum(nearest[part], _squared(points[part], squares[part], points[new], squares[new]))
        new = _farthest_of_pool(points, squares, nearest, count - len(chosen))
    return np.array(chosen)


def _squared(points: np.ndarray, squares: np.ndarray, others: np.ndarray, their_squares: np.ndarray) -> np.ndarray:
    """Returns (N,) squared distance of each point to the nearest of the others."""
    return squares + (their_squares - 2 * (points @ others.T)).min(axis=1)


def _farthest_of_pool(points: np.ndarray, squares: np.ndarray, nearest: np.ndarray, most: int) -> list[int]:
    """Returns up to `most` next choices while no point outside the pool can be farther; empty if nothing is left."""
    size = min(POOL, len(points))
    limit = np.partition(nearest, -size)[-size]  # nothing outside the pool is farther than this
    pool = np.flatnonzero(nearest > limit)
    pool = np.sort(np.concatenate([pool, np.flatnonzero(nearest == limit)[: size - len(pool)]]))
    distances = squares[pool] + squares[pool][:, None] - 2 * (points[pool] @ points[pool].T)
    left = nearest[pool]
    new: list[int] = []
    while len(new) < most:
        best = int(left.argmax())
        if left[best] <= 0 or (new and left[best] <= limit):
            break
        new.append(int(pool[best]))
        left = np.minimum(left, distances[best])
    return new


def heading_free(poses: np.ndarray) -> np.ndarray:
    """(N, 22, 3) axis-angle, root in the camera frame → (N, 24, 3, 3) as captions need it, hands in rest pose."""
    vectors = np.zeros((len(poses), 24, 3))
    vectors[:, :BODY_JOINTS] = poses
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    return semantic_frame(matrices, "camera")


def captions_of(
    poses: np.ndarray, keys: Sequence[str], body_model: Path, number: int
) -> dict[str, tuple[Caption, ...]]:
    """Returns `number` captions per key, of poses (N, 22, 3), axis-angle with the root in the camera frame.

    Captions depend only on the pose and its key, not on the rest of the batch.
    """
    rngs = [numpy_rng(CAPTION_SEED, "bedlam captions", key) for key in keys]
    texts = describe_poses(heading_free(poses), _rest_joints(body_model), rngs, number)
    return {key: tuple(Caption(text, "automatic") for text in own) for key, own in zip(keys, texts, strict=True)}


@lru_cache(maxsize=1)
def _rest_joints(folder: Path) -> np.ndarray:
    return read_model_file(find_model_file(folder, "neutral")).rest
