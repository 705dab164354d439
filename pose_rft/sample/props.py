"""Occluders in front of people: furniture, poles, railings, plants and held objects; each hides part of somebody."""

from collections.abc import Sequence

import cv2
import numpy as np

from pose_rft.body.joints import SMPL24
from pose_rft.sample.people import Seen
from pose_rft.sample.scene import PALETTE, pick, vary

MOST = 0.45  # largest share of a person's bounding box that one occluder may cover
HANDS = (SMPL24.index("left_hand"), SMPL24.index("right_hand"))


def in_front(rng: np.random.Generator, canvas: np.ndarray, seen: Sequence[Seen]) -> np.ndarray:
    """Paints up to two occluders over people in `canvas` (H, W, 3) float32; returns the covered pixels (H, W) bool."""
    covered = np.zeros(canvas.shape[:2], bool)
    somebody = seen[int(rng.integers(len(seen)))]
    low, high = somebody.joints2d.min(0), somebody.joints2d.max(0)
    body = np.clip(np.stack([low, high]), 0, (canvas.shape[1], canvas.shape[0]))
    for _ in range(int(rng.integers(1, 3))):
        shape = np.zeros(canvas.shape[:2], np.uint8)
        (_furniture, _pole, _railing, _plant, _held)[int(rng.choice(5, p=(0.35, 0.15, 0.12, 0.13, 0.25)))](
            rng, shape, body, somebody
        )
        area = shape[int(body[0, 1]) : int(body[1, 1]) + 1, int(body[0, 0]) : int(body[1, 0]) + 1]
        if area.size == 0 or area.mean() > MOST:
            continue
        _paint(rng, canvas, shape)
        covered |= shape > 0
    return covered


def _paint(rng: np.random.Generator, canvas: np.ndarray, shape: np.ndarray) -> None:
    """Fills `shape` with a dull colour, lighter at the top, with darker edges and some grain."""
    color = np.array(vary(rng, PALETTE[pick(rng, PALETTE)], 0.3))
    color = 0.6 * color + 0.4 * color.mean()
    rows = np.linspace(1.1, 0.8, len(canvas))[:, None]
    inner = cv2.erode(shape, np.ones((3, 3), np.uint8))
    glow = rows * (1 + rng.normal(0, 0.03, shape.shape)) * np.where(inner > 0, 1.0, 0.75)
    inside = shape > 0
    canvas[inside] = np.clip(color * glow[..., None], 0, 1)[inside].astype(np.float32)


def _furniture(rng: np.random.Generator, shape: np.ndarray, body: np.ndarray, somebody: Seen) -> None:
    """Draws a table, a counter or a box that hides the lower part, or a door post that hides one side."""
    (left, top), (right, bottom) = body
    width, height = right - left, bottom - top
    if rng.uniform() < 0.7:
        upper = bottom - height * rng.uniform(0.15, 0.5)
        x0, x1 = left - width * rng.uniform(-0.4, 1.5), right + width * rng.uniform(-0.4, 1.5)
        lower = upper + height * rng.choice([0.1, rng.uniform(0.3, 2.0)])
        _box(shape, x0, upper, x1, lower)
        for leg in (x0 + 0.05 * width, x1 - 0.12 * width):
            _box(shape, leg, lower, leg + 0.07 * width, lower + 0.5 * height)
    else:
        x = left if rng.uniform() < 0.5 else right
        share = rng.uniform(0.2, 0.45) * width
        _box(shape, x - share, 0, x + share, len(shape))


def _pole(rng: np.random.Generator, shape: np.ndarray, body: np.ndarray, somebody: Seen) -> None:
    ends = rng.uniform(-0.5, 1.5, (2, 2)) * (body[1] - body[0]) + body[0]
    middle = ends.mean(0)
    ends = middle + (ends - middle) * 4
    _line(shape, ends[0], ends[1], 0.02 + rng.uniform(0, 0.05))


def _railing(rng: np.random.Generator, shape: np.ndarray, body: np.ndarray, somebody: Seen) -> None:
    upper, lower = np.sort(rng.uniform(0.3, 1.3, 2)) * (body[1, 1] - body[0, 1]) + body[0, 1]
    for y in (upper, lower):
        _line(shape, np.array([-9.0, y]), np.array([shape.shape[1] + 9.0, y]), 0.02)
    for x in np.arange(rng.uniform(0, 9), shape.shape[1], rng.uniform(0.08, 0.2) * shape.shape[1]):
        _line(shape, np.array([x, upper]), np.array([x, lower]), 0.012)


def _plant(rng: np.random.Generator, shape: np.ndarray, body: np.ndarray, somebody: Seen) -> None:
    size = body[1] - body[0]
    root = body[0] + size * (rng.uniform(-0.2, 1.2), rng.uniform(0.8, 1.3))
    for _ in range(int(rng.integers(8, 25))):
        x, y = root + rng.normal(0, 0.15, 2) * size.max() - (0, 0.25 * size.max())
        axes = (max(1, int(0.07 * size.max())), max(1, int(0.02 * size.max())))
        cv2.ellipse(shape, (int(x), int(y)), axes, int(rng.integers(0, 180)), 0, 360, 1, -1)


def _held(rng: np.random.Generator, shape: np.ndarray, body: np.ndarray, somebody: Seen) -> None:
    """Draws an object in a hand: a ball or a bag, or a bat, a racket or a stick."""
    hand = somebody.joints2d[HANDS[int(rng.integers(2))]]
    tall = float((body[1] - body[0]).max())
    if not np.isfinite(hand).all() or np.abs(hand).max() > 1e4:
        return
    if rng.uniform() < 0.5:
        radius = max(1, int(tall * rng.uniform(0.03, 0.1)))
        x, y = (int(v) for v in hand + rng.normal(0, 0.5, 2) * radius)
        if rng.uniform() < 0.5:
            cv2.circle(shape, (x, y), radius, 1, -1)
        else:
            _box(shape, x - radius, y, x + radius, y + 2.2 * radius)
        return
    way = rng.normal(size=2)
    tip = hand + way / np.sqrt((way * way).sum()) * tall * rng.uniform(0.2, 0.8)
    _line(shape, hand, tip, rng.uniform(0.008, 0.03))
    if rng.uniform() < 0.3:
        cv2.circle(shape, (int(tip[0]), int(tip[1])), max(1, int(0.07 * tall)), 1, -1)


def _box(shape: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> None:
    cv2.rectangle(shape, (int(x0), int(y0)), (int(x1), int(y1)), 1, -1)


def _line(shape: np.ndarray, start: np.ndarray, end: np.ndarray, width: float) -> None:
    """Draws a line; `width` is relative to the image height."""
    thick = max(1, int(width * shape.shape[0]))
    (x0, y0), (x1, y1) = (np.clip(point, -2000, 2000).astype(int).tolist() for point in (start, end))
    cv2.line(shape, (x0, y0), (x1, y1), 1, thick)
