"""Backgrounds of varied images: rooms, streets, meadows, snow, seen through the image's own camera.

A ray for every second pixel in each direction is intersected with the ground, the walls or the sky, so the perspective
is right for cameras that look down or are rolled. People darken the ground below them. Textures are multi-scale noise.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from pose_rft.render.steps import in_steps
from pose_rft.sample.people import Person, View
from pose_rft.sample.scene import FLOORS, PALETTE, WALLS, Background, pick, vary

GROUNDS = {
    "grass": (0.33, 0.46, 0.2),
    "meadow": (0.5, 0.53, 0.28),
    "snow": (0.9, 0.92, 0.95),
    "sand": (0.8, 0.7, 0.52),
    "asphalt": (0.36, 0.36, 0.38),
    "earth": (0.5, 0.38, 0.27),
    "water": (0.25, 0.42, 0.52),
    "court": (0.62, 0.32, 0.24),
    "paving": (0.6, 0.58, 0.55),
}
SKIES = ((0.45, 0.64, 0.9), (0.62, 0.75, 0.92), (0.82, 0.84, 0.87), (0.65, 0.68, 0.74), (0.9, 0.72, 0.55))
TREES = (0.18, 0.29, 0.14)
OUTDOORS = 0.6  # share of the images
CELL, CELLS = 0.06, 64  # grid on which people darken the ground: cell size in metres, cells per side
COARSE = 2  # px between rays: the background is out of focus


def surroundings(rng: np.random.Generator, view: View, people: Sequence[Person]) -> Background:
    """Returns the view behind `people`; the ground is at y = 0, or lower if the camera is less than 0.5 m above it."""
    columns, rows = np.meshgrid(np.arange(0.5, view.width, COARSE) + 0.5, np.arange(0.5, view.height, COARSE) + 0.5)
    x, y = (columns - view.K[0, 2]) / view.K[0, 0], (rows - view.K[1, 2]) / view.K[1, 1]
    rays = x[..., None] * view.R[0] + y[..., None] * view.R[1] + view.R[2]
    eye = -(view.t[:, None] * view.R).sum(0)
    floor = min(0.0, float(eye[1]) - 0.5)
    scene = _outdoors if rng.uniform() < OUTDOORS else _indoors
    image = scene(rng, rays, eye, floor, people)
    image = cv2.resize(image, view.size, interpolation=cv2.INTER_LINEAR)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.003, 0.012) * view.height)
    return Background(in_steps(np.clip(image, 0, 1)), None)


class _Noise:
    """Smooth noise in [-1, 1] over a plane, with a period of 32 cells."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.values = rng.uniform(-1, 1, (32, 32))

    def at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        u, v = np.clip(u, -1e6, 1e6), np.clip(v, -1e6, 1e6)
        column, row = np.floor(u), np.floor(v)
        right, down = u - column, v - row
        i, j = column.astype(np.int64) % 32, row.astype(np.int64) % 32
        i2, j2 = (i + 1) % 32, (j + 1) % 32
        above = self.values[j, i] * (1 - right) + self.values[j, i2] * right
        below = self.values[j2, i] * (1 - right) + self.values[j2, i2] * right
        return above * (1 - down) + below * down


def _outdoors(
    rng: np.random.Generator, rays: np.ndarray, eye: np.ndarray, floor: float, people: Sequence[Person]
) -> np.ndarray:
    dx, dy, dz = (rays[..., i] for i in range(3))
    flat = np.sqrt(dx * dx + dz * dz) + 1e-9
    elevation = dy / flat
    sky, noise = np.array(SKIES[rng.integers(len(SKIES))]), _Noise(rng)
    up = np.clip(elevation, 0, 3)[..., None]
    image = sky * (1 - 0.25 * up / (0.6 + up)) + (0.25 / (1 + 6 * up)) * (1 - sky)
    clouds = noise.at(dx / (np.abs(dy) + 0.15) * 1.7, dz / (np.abs(dy) + 0.15) * 1.7)[..., None]
    image += rng.uniform(0, 0.2) * np.clip(clouds, 0, 1)
    image = _skyline(rng, image, dx / flat, dz / flat, elevation)
    below = elevation < 0
    distance = np.where(below, (floor - eye[1]) / np.where(below, dy, -1.0), 0.0)
    x, z = eye[0] + distance * dx, eye[2] + distance * dz
    kind = list(GROUNDS)[rng.integers(len(GROUNDS))]
    ground = _textured(rng, vary(rng, GROUNDS[kind], 0.15), x, z)
    if kind in ("court", "asphalt", "paving"):
        ground = _lines(rng, ground, x, z)
    ground *= _shade(people, x, z)[..., None]
    haze = np.clip(distance * flat / rng.uniform(40, 200), 0, 0.8)[..., None]
    return np.where(below[..., None], ground * (1 - haze) + image.mean() * haze, image)


def _skyline(
    rng: np.random.Generator, image: np.ndarray, east: np.ndarray, north: np.ndarray, elevation: np.ndarray
) -> np.ndarray:
    """Draws woods, hills or houses up to an elevation that depends on the direction."""
    around = np.where(north > 0, east, 2 - east) * 8  # increases with the azimuth, without trigonometry
    noise = _Noise(rng)
    for _ in range(int(rng.integers(0, 4))):
        height, houses = rng.uniform(0.03, 0.6), rng.uniform() < 0.4
        place = np.floor(around * rng.uniform(0.5, 2)) if houses else around * rng.uniform(1, 6)
        top = height * (0.6 + 0.5 * noise.at(place, np.full_like(place, rng.uniform(0, 30))))
        color = vary(rng, WALLS[pick(rng, WALLS)] if houses else TREES, 0.3)
        texture = noise.at(around * 30, elevation * 40) * rng.uniform(0.02, 0.15)
        if houses:
            windows = ((around * 12) % 1 < 0.4) & ((elevation * 14) % 1 < 0.5)
            texture = texture - 0.18 * windows
        image = np.where((elevation < top)[..., None], color + texture[..., None], image)
    return image


def _indoors(
    rng: np.random.Generator, rays: np.ndarray, eye: np.ndarray, floor: float, people: Sequence[Person]
) -> np.ndarray:
    """Draws a room with objects on its walls; the camera is inside."""
    reach = np.maximum(np.abs(eye[[0, 2]]) + 0.6, rng.uniform(1.6, 5.0, 2))
    height = max(float(eye[1]) + 0.4, floor + rng.uniform(2.3, 4.0))
    wall, noise = WALLS[pick(rng, WALLS)], _Noise(rng)
    planes = [(1, floor), (1, height), *((axis, side * reach[axis // 2]) for axis in (0, 2) for side in (-1, 1))]
    nearest = np.full(rays.shape[:2], np.inf)
    image = np.zeros(rays.shape)
    for number, (axis, place) in enumerate(planes):
        along = rays[..., axis]
        distance = (place - eye[axis]) / np.where(np.abs(along) < 1e-9, 1e-9, along)
        u, v = (eye[other] + distance * rays[..., other] for other in ((0, 2) if axis == 1 else (2 - axis, 1)))
        if number == 0:
            surface = _textured(rng, vary(rng, FLOORS[pick(rng, FLOORS)], 0.15), u, v)
            surface = _lines(rng, surface, u, v) * _shade(people, u, v)[..., None]
        elif number == 1:
            surface = np.broadcast_to(vary(rng, WALLS["white"], 0.08), rays.shape)
        else:
            surface = vary(rng, wall, 0.1) * rng.uniform(0.75, 1.05) + 0.03 * noise.at(u * 5, v * 5)[..., None]
            surface = _things(rng, surface, u, v, reach[(2 - axis) // 2])
        hit = (distance > 0) & (distance < nearest)
        image[hit], nearest[hit] = surface[hit], distance[hit]
    return image * rng.uniform(0.8, 1.1)


def _textured(rng: np.random.Generator, color: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns ground of one colour with patches, grain and tufts."""
    noise, strength = _Noise(rng), rng.uniform(0.3, 1)
    rough = 0.14 * noise.at(u * 0.7, v * 0.7) + 0.1 * noise.at(u * 4, v * 4) + 0.1 * noise.at(u * 17, v * 17)
    return color * (1 + strength * rough)[..., None]


def _lines(rng: np.random.Generator, surface: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Adds boards, tiles or court lines, or nothing in a quarter of the cases."""
    kind = rng.integers(4)
    if kind == 3:
        return surface
    width = rng.uniform(0.1, 0.8) if kind < 2 else rng.uniform(1.5, 4)
    line = (u / width % 1 < 0.04) | ((v / width % 1 < 0.04) & (kind != 0))
    return np.where(line[..., None], surface * 0.8 if kind < 2 else 0.92, surface)


def _things(rng: np.random.Generator, surface: np.ndarray, u: np.ndarray, v: np.ndarray, reach: float) -> np.ndarray:
    """Adds pictures, windows, doors and cupboards to a wall."""
    for _ in range(int(rng.integers(0, 5))):
        place, width = rng.uniform(-reach, reach), rng.uniform(0.3, 1.4)
        low, high = sorted(rng.uniform(0, 2.4, 2))
        low = 0.0 if rng.uniform() < 0.4 else low
        inside = (np.abs(u - place) < width / 2) & (v > low) & (v < high)
        frame = inside & ~((np.abs(u - place) < width / 2 - 0.05) & (v > low + 0.05) & (v < high - 0.05))
        color = (
            np.array(PALETTE[pick(rng, PALETTE)]) * 0.7 + 0.15 if rng.uniform() < 0.7 else np.array([0.8, 0.88, 0.95])
        )
        surface = np.where(inside[..., None], color, surface)
        surface = np.where(frame[..., None], color * rng.uniform(0.5, 1.3), surface)
    return surface


def _shade(people: Sequence[Person], x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Returns the share of light on the ground at (x, z): less below and next to body parts near the ground."""
    counts = np.zeros((CELLS, CELLS), np.int64)
    middle = np.mean([person.joints[0, [0, 2]] for person in people], axis=0)
    for person in people:
        low = person.vertices[::4][person.vertices[::4, 1] < 0.7]
        cells = np.floor((low[:, [0, 2]] - middle) / CELL).astype(np.int64) + CELLS // 2
        cells = cells[((cells >= 0) & (cells < CELLS)).all(1)]
        np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    padded = np.pad(counts, 2)
    soft = sum(padded[i : i + CELLS, j : j + CELLS] for i in range(5) for j in range(5))
    dark = 0.5 * np.minimum(soft / 120.0, 1.0)
    i = np.clip(np.floor((x - middle[0]) / CELL), -CELLS, CELLS).astype(np.int64) + CELLS // 2
    j = np.clip(np.floor((z - middle[1]) / CELL), -CELLS, CELLS).astype(np.int64) + CELLS // 2
    inside = (i >= 0) & (i < CELLS) & (j >= 0) & (j < CELLS)
    return 1 - np.where(inside, dark[np.clip(j, 0, CELLS - 1), np.clip(i, 0, CELLS - 1)], 0.0)
