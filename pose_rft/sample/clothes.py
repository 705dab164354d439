"""Bulky clothes: jackets, skirts, caps, long hair and prints over the plain outfits of `scene`.

Clothes here stand off the skin (`Outfit.thickness`) and change the silhouette; the body underneath, and so every
label, is unchanged.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.sample.scene import HAIR, PALETTE, Outfit, Wardrobe, outfit, pick, vary

# Offsets the faces of a mask from the skin by up to the given number of metres.
Puff = Callable[[np.ndarray, float], None]
# The most common clothing colours: denim, black, white, greys, beige, navy, olive, wine.
CLOTH = (
    *((0.25, 0.33, 0.46), (0.15, 0.2, 0.32), (0.09, 0.09, 0.1), (0.88, 0.87, 0.84), (0.35, 0.35, 0.37)),
    *((0.62, 0.62, 0.63), (0.66, 0.58, 0.46), (0.12, 0.15, 0.26), (0.33, 0.34, 0.22), (0.4, 0.13, 0.17)),
)
LOOSE = 0.018  # metres by which the loosest shirts and trousers stand off the skin


def dressed(rng: np.random.Generator, wardrobe: Wardrobe, body: NumpyBody) -> Outfit:
    """Draws a plain outfit, usually with something over it."""
    base = outfit(rng, wardrobe)
    colors, faces = base.face_colors.copy(), body.faces
    thick = np.zeros(len(body.v_template), np.float32)

    def puff(where: np.ndarray, most: float) -> None:
        corners = faces[where]
        thick[corners] = np.maximum(thick[corners], np.float32(most * rng.uniform(0.15, 1)))

    w = wardrobe
    shirt = w.trunk & (w.height > w.waist - 0.1)
    puff(shirt | (w.arms & (w.arm < 1.7)), LOOSE)
    puff(w.lower & (w.leg < 1.8) & (w.height < w.waist), LOOSE)
    puff(w.feet, 0.008)
    extras = rng.uniform(size=7) < (0.3, 0.25, 0.3, 0.3, 0.25, 0.5, 0.5)
    for wanted, garment in ((extras[5], shirt), (extras[6], w.hips & (w.height < w.waist - 0.12) & (w.leg < 0.3))):
        if wanted:
            colors[(colors == colors[np.flatnonzero(garment)[0]]).all(1)] = _cloth(rng)
    if extras[0]:
        _jacket(rng, w, colors, puff)
    if extras[1]:
        _skirt(rng, w, colors, puff)
    if extras[2]:
        _hat(rng, w, colors, puff)
    elif extras[3]:
        _long_hair(rng, w, colors, puff)
    if extras[4] and not extras[0]:
        _print(rng, w, colors, shirt)
    cloth = w.trunk | w.arms | w.lower
    grain = rng.normal(0, rng.uniform(0.005, 0.03), len(colors))[:, None]
    colors[cloth] *= (1 + grain[cloth]).astype(np.float32)
    description = replace(base.description, complete=not extras.any())
    return Outfit(np.clip(colors, 0.01, 0.99), description, thick)


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """Draws a muted colour, or a bright one slightly faded."""
    if rng.uniform() < 0.6:
        return vary(rng, CLOTH[int(rng.integers(len(CLOTH)))], 0.25)
    loud = vary(rng, PALETTE[pick(rng, PALETTE)], 0.2)
    share = rng.uniform(0, 0.4)
    return loud * (1 - share) + loud.mean() * share


def _jacket(rng: np.random.Generator, w: Wardrobe, colors: np.ndarray, puff: Puff) -> None:
    """Adds a jacket with long sleeves, open or closed at the front, down to the hips or the thighs."""
    hem = w.waist - rng.uniform(0.05, 0.45)
    opening = rng.choice([0.0, rng.uniform(0.02, 0.07)])
    open_front = (np.abs(w.center[:, 0]) < opening) & (w.center[:, 2] > 0)
    sleeves = w.arms & (w.arm < 1.9)
    jacket = ((w.trunk | w.hips) & (w.height > hem) & ~open_front) | sleeves
    colors[jacket] = _cloth(rng)
    puff(jacket, 0.03)


def _skirt(rng: np.random.Generator, w: Wardrobe, colors: np.ndarray, puff: Puff) -> None:
    """Adds a skirt or a dress; the legs below are bare or in tights."""
    end = rng.uniform(0.4, 1.3)
    top = w.height.max() if rng.uniform() < 0.5 else w.waist + 0.03
    body = w.trunk | w.hips | (w.lower & (w.leg < end))
    skirt = body & (w.height < top)
    colors[skirt] = _cloth(rng)
    puff(skirt, 0.02)
    puff(w.lower & (w.leg > 0.1) & (w.leg < end), 0.06)
    below = w.lower & (w.leg >= end) & (w.leg < 1.92)
    colors[below] = colors[w.lips][0] if rng.uniform() < 0.6 else vary(rng, PALETTE["black"], 0.2)


def _hat(rng: np.random.Generator, w: Wardrobe, colors: np.ndarray, puff: Puff) -> None:
    """Adds a cap, a beanie or a helmet in place of the hair."""
    colors[w.hair] = _cloth(rng)
    puff(w.hair, 0.035)


def _long_hair(rng: np.random.Generator, w: Wardrobe, colors: np.ndarray, puff: Puff) -> None:
    """Adds hair over the back of the neck and the shoulders."""
    low = w.height[w.hair].min() - rng.uniform(0.03, 0.25)
    behind = (w.height > low) & (w.center[:, 2] < w.center[w.hair, 2].mean() + 0.01) & ~w.arms
    hair = w.hair | behind
    colors[hair] = vary(rng, HAIR[pick(rng, HAIR)], 0.2)
    puff(hair, 0.025)


def _print(rng: np.random.Generator, w: Wardrobe, colors: np.ndarray, shirt: np.ndarray) -> None:
    """Adds a check pattern, vertical stripes, a broad band or a block of another colour."""
    other = _cloth(rng)
    x, y = w.center[:, 0] / rng.uniform(0.03, 0.12), w.center[:, 1] / rng.uniform(0.03, 0.12)
    pattern = (
        (x % 1 < 0.5) ^ (y % 1 < 0.5),
        x % 1 < 0.4,
        np.abs(w.height - w.waist - rng.uniform(0.05, 0.3)) < 0.06,
        w.height > w.waist + rng.uniform(0.1, 0.3),
    )[int(rng.integers(4))]
    colors[shirt & pattern] = other
