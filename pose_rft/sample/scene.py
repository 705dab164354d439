"""Clothes, backgrounds and light of the sample's images, with the names of their colours.

Questions about an image are answered from these descriptions, so colours come from a named palette and vary so little
that their names stay correct under any of the lights. Clothes are regions of the body surface in the rest pose,
derived from skinning weights and joint positions, so they fit any body model.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from pose_rft.body.joints import SMPL24
from pose_rft.body.lbs_numpy import SURFACE_VERTICES, NumpyBody
from pose_rft.render.renderer import Light
from pose_rft.render.steps import in_steps

Color = np.ndarray  # (3,) RGB in [0, 1]

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.13, 0.13),
    "orange": (0.93, 0.5, 0.1),
    "yellow": (0.93, 0.82, 0.2),
    "green": (0.2, 0.52, 0.25),
    "blue": (0.16, 0.33, 0.72),
    "purple": (0.45, 0.22, 0.6),
    "pink": (0.92, 0.55, 0.68),
    "brown": (0.42, 0.27, 0.16),
    "black": (0.09, 0.09, 0.1),
    "grey": (0.5, 0.5, 0.52),
    "white": (0.92, 0.92, 0.9),
}
# Walls and floors are paler than clothes, but their colour names still apply.
WALLS: dict[str, tuple[float, float, float]] = {
    "white": (0.9, 0.89, 0.86),
    "grey": (0.62, 0.63, 0.65),
    "blue": (0.5, 0.66, 0.85),
    "green": (0.58, 0.75, 0.58),
    "yellow": (0.92, 0.86, 0.58),
    "pink": (0.9, 0.71, 0.74),
    "brown": (0.58, 0.45, 0.35),
    "purple": (0.62, 0.55, 0.76),
}
FLOORS: dict[str, tuple[float, float, float]] = {
    "brown": (0.5, 0.36, 0.25),
    "grey": (0.46, 0.46, 0.48),
    "green": (0.36, 0.52, 0.3),
    "blue": (0.28, 0.38, 0.56),
    "red": (0.58, 0.26, 0.24),
    "white": (0.84, 0.83, 0.8),
    "black": (0.16, 0.16, 0.17),
}
HAIR: dict[str, tuple[float, float, float]] = {
    "black": (0.07, 0.06, 0.06),
    "brown": (0.28, 0.17, 0.1),
    "blond": (0.78, 0.62, 0.34),
    "red": (0.55, 0.22, 0.1),
    "grey": (0.6, 0.6, 0.6),
}
SKIN = ((0.95, 0.8, 0.7), (0.9, 0.72, 0.58), (0.8, 0.6, 0.45), (0.62, 0.43, 0.3), (0.45, 0.3, 0.2), (0.33, 0.21, 0.15))

Sleeves = Literal["none", "short", "long"]
Legs = Literal["shorts", "trousers"]
# Where a sleeve ends: 0 at the shoulder, 1 at the elbow, 2 at the wrist; a trouser leg: 0 at the hip, 1 knee, 2 ankle.
SLEEVE_ENDS: dict[Sleeves, float] = {"none": 0.02, "short": 0.55, "long": 1.9}
LEG_ENDS: dict[Legs, float] = {"shorts": 0.75, "trousers": 1.92}


@dataclass(frozen=True)
class OutfitDescription:
    """Names of what a person wears; colours are keys of `PALETTE`, hair is a key of `HAIR` or `bald`.

    complete: nothing is worn over these clothes, so answers may rely on the description.
    """

    top: str
    pattern: Literal["plain", "striped"]
    sleeves: Sleeves
    bottom: str
    legs: Legs
    shoes: str
    hair: str
    complete: bool = True


@dataclass(frozen=True, eq=False)
class Outfit:
    """face_colors (F, 3) float32 RGB in [0, 1] for the wardrobe's body; thickness (V,) float32: metres by which cloth
    and hair stand off the skin, None for clothes that are only painted on."""

    face_colors: np.ndarray
    description: OutfitDescription
    thickness: np.ndarray | None = None


@dataclass(frozen=True)
class BackgroundDescription:
    """Colour names: keys of `FLOORS` and `WALLS`."""

    floor: str
    wall: str


@dataclass(frozen=True, eq=False)
class Background:
    """image (H, W, 3) float32 RGB in [0, 1]; description: None if the colours have no simple names."""

    image: np.ndarray
    description: BackgroundDescription | None


class Wardrobe:
    """Clothing regions on one body model's surface in the rest pose, per face."""

    def __init__(self, body: NumpyBody) -> None:
        faces, rest = body.faces, body.rest_joints()
        self.center = body.v_template[faces].mean(1)
        owner = body.weights.argmax(1)[faces[:, 0]]

        def of(*parts: str) -> np.ndarray:
            """Faces that move mostly with these joints, on both sides."""
            joints = [i for i, name in enumerate(SMPL24.joints) if name.split("_")[-1] in parts]
            return np.isin(owner, joints)

        def along(parts: tuple[str, str, str]) -> np.ndarray:
            """Position along the limb on the face's own side: 0 at its first joint, 1 at the second, 2 at the third."""
            side = np.where(self.center[:, 0] > 0, "left", "right")
            place = np.zeros(len(faces))
            for name in ("left", "right"):
                first, second, third = (rest[SMPL24.index(f"{name}_{part}")] for part in parts)
                for start, end, offset in ((first, second, 0.0), (second, third, 1.0)):
                    bone = end - start
                    share = ((self.center - start) * bone).sum(1) / (bone * bone).sum()
                    use = (side == name) & ((share > 0) | (offset == 0))
                    place[use] = offset + (share[use] if offset else np.minimum(share[use], 1.0))
            return place

        self.arm = along(("shoulder", "elbow", "wrist"))
        self.leg = along(("hip", "knee", "ankle"))
        self.height = self.center[:, 1]
        joint = {name: rest[SMPL24.index(name)] for name in SMPL24.joints}
        self.waist = float(joint["spine1"][1])
        neck, ankle = float(joint["neck"][1]), float(joint["left_ankle"][1])
        self.trunk = of("spine1", "spine2", "spine3", "collar") | (of("neck") & (self.height < neck))
        self.arms = of("shoulder", "elbow", "wrist")
        self.hips = of("pelvis", "hip")
        self.lower = of("pelvis", "hip", "knee", "ankle", "spine1")
        self.feet = of("ankle", "foot") & (self.height < ankle + 0.035)
        spot = {name: body.v_template[index] for name, index in SURFACE_VERTICES.items()}
        eyes = (spot["left_eye"] + spot["right_eye"]) / 2
        crown = body.v_template[:, 1].max()
        # Hair: above the brow, and behind the ears down to the nape.
        brow = eyes[1] + 0.28 * (crown - eyes[1])
        ear = (spot["left_ear"] + spot["right_ear"]) / 2
        head = of("head")
        self.hair = head & (
            (self.height > brow) | ((self.center[:, 2] < ear[2] - 0.01) & (self.height > ear[1] - 0.05))
        )
        near_eye = np.minimum(
            *(np.linalg.norm(self.center - spot[f"{side}_eye"], axis=1) for side in ("left", "right"))
        )
        self.eyes = head & (near_eye < 0.011) & (self.center[:, 2] > eyes[2] - 0.012)
        mouth = spot["nose"] + np.array([0.0, -0.55 * (eyes[1] - spot["nose"][1]) - 0.018, -0.012])
        from_mouth = (self.center - mouth) / np.array([0.024, 0.009, 0.03])
        self.lips = head & (np.linalg.norm(from_mouth, axis=1) < 1)


def vary(rng: np.random.Generator, color: tuple[float, float, float], amount: float) -> Color:
    """Returns a random shade of a named colour."""
    return np.clip(np.array(color) * rng.uniform(1 - amount, 1 + amount) + rng.normal(0, 0.007, 3), 0.02, 0.98)


def pick(rng: np.random.Generator, names: dict[str, tuple[float, float, float]], but: tuple[str, ...] = ()) -> str:
    """Returns one of the names at random, excluding those in `but`."""
    return str(rng.choice([name for name in names if name not in but]))


def outfit(rng: np.random.Generator, wardrobe: Wardrobe) -> Outfit:
    """Draws random clothes; top and bottom have different colours, and neither is brown, as some people's skin is."""
    top = pick(rng, PALETTE, but=("brown",))
    bottom = pick(rng, PALETTE, but=(top, "brown"))
    shoes = pick(rng, PALETTE, but=(bottom,))
    sleeves: Sleeves = ("none", "short", "long")[rng.choice(3, p=[0.12, 0.48, 0.4])]
    legs: Legs = ("shorts", "trousers")[rng.choice(2, p=[0.35, 0.65])]
    hair = pick(rng, HAIR) if rng.uniform() < 0.93 else "bald"
    striped = bool(rng.uniform() < 0.22)

    w = wardrobe
    skin = np.array(SKIN[rng.integers(len(SKIN))]) * rng.uniform(0.93, 1.04)
    colors = np.tile(skin, (len(w.height), 1))
    colors[w.lips] = skin * (0.88, 0.62, 0.6)
    sleeve_end = SLEEVE_ENDS[sleeves] + (rng.uniform(-0.12, 0.12) if sleeves == "short" else 0.0)
    hem = w.waist - rng.uniform(0.02, 0.1)
    shirt = (w.trunk | (w.arms & (w.arm < sleeve_end)) | (w.hips & (w.arm < 0.5))) & (w.height > hem)
    leg_end = LEG_ENDS[legs] + (rng.uniform(-0.3, 0.15) if legs == "shorts" else 0.0)
    trousers = w.lower & (w.height <= hem) & (w.leg < leg_end)
    colors[trousers] = vary(rng, PALETTE[bottom], 0.12)
    main = vary(rng, PALETTE[top], 0.12)
    colors[shirt] = main
    if striped:  # narrow stripes of a different brightness, so that the shirt keeps its colour name
        spacing = rng.uniform(0.05, 0.09)
        stripes = shirt & ((w.height / spacing) % 1 < 0.3) & w.trunk
        colors[stripes] = main * 0.55 if main.mean() > 0.35 else np.clip(main + 0.3, 0, 1)
    colors[w.feet] = vary(rng, PALETTE[shoes], 0.12)
    if hair != "bald":
        colors[w.hair] = vary(rng, HAIR[hair], 0.15)
    colors[w.eyes] = (0.08, 0.06, 0.06)
    description = OutfitDescription(top, "striped" if striped else "plain", sleeves, bottom, legs, shoes, hair)
    return Outfit(colors.astype(np.float32), description)


def background(rng: np.random.Generator, size: tuple[int, int]) -> Background:
    """Draws a plain room: wall and floor with objects, soft light, a little noise. size = (H, W)."""
    height, width = size
    wall = pick(rng, WALLS)
    floor = pick(rng, FLOORS, but=(wall,))
    horizon = int(height * rng.uniform(0.55, 0.8))
    rows = np.linspace(0, 1, height)[:, None, None]
    columns = np.linspace(-1, 1, width)[None, :, None]
    lamp = rng.uniform(-1, 1)
    image: np.ndarray = vary(rng, WALLS[wall], 0.1) * (1.04 - 0.1 * rows - 0.1 * (columns - lamp) ** 2)
    image = np.ascontiguousarray(image)
    for _ in range(rng.integers(0, 4)):
        _on_the_wall(rng, image, horizon)
    near = np.clip((rows[horizon:] - horizon / height) / (1 - horizon / height), 0, 1)
    ground = vary(rng, FLOORS[floor], 0.1) * (0.82 + 0.28 * near) * np.ones_like(columns)
    if rng.uniform() < 0.6:
        ground = _boards(rng, ground, near[:, :, 0], columns[:, :, 0])
    image[horizon:] = ground
    skirting = max(1, height // 60)
    image[max(0, horizon - skirting) : horizon] *= rng.uniform(0.75, 0.95)
    for _ in range(rng.integers(0, 3)):
        _on_the_floor(rng, image, horizon)
    grain = rng.normal(0, rng.uniform(0.004, 0.02), (height // 4 + 1, width // 4 + 1))
    image += cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    blurred: np.ndarray = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.004, 0.012) * height)
    return Background(in_steps(np.clip(blurred, 0, 1)), BackgroundDescription(floor, wall))


def _boards(rng: np.random.Generator, ground: np.ndarray, near: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Draws floor boards in perspective, towards a point on the horizon; near (h, 1), columns (1, w)."""
    vanishing = rng.uniform(-0.5, 0.5)
    across = (columns - vanishing) / (0.25 + near) * rng.uniform(4, 9)
    return ground * (1 - 0.1 * ((across % 1) < 0.08))[..., None]


def _thing_color(rng: np.random.Generator) -> Color:
    color = np.array(PALETTE[pick(rng, PALETTE)])
    return 0.75 * color + 0.25 * color.mean() + 0.06  # duller than clothes


def _on_the_wall(rng: np.random.Generator, image: np.ndarray, horizon: int) -> None:
    """Draws a picture, a window or a door."""
    width = image.shape[1]
    w, h = rng.uniform(0.1, 0.3) * width, rng.uniform(0.2, 0.45) * horizon
    kind = rng.integers(3)
    x = rng.uniform(-0.05, 1.0) * (width - w)
    y = horizon - 1.9 * h if kind == 2 else rng.uniform(0.05, 0.9) * max(1.0, horizon - 1.3 * h)
    h = 1.9 * h if kind == 2 else h
    outer, edge = _thing_color(rng) if kind else np.array([0.93, 0.93, 0.9]), max(1, int(0.03 * width))
    _rectangle(image, x, y, w, h, outer)
    if kind < 2:
        inside = np.array([0.72, 0.84, 0.94]) if kind == 0 else _thing_color(rng)
        _rectangle(image, x + edge, y + edge, w - 2 * edge, h - 2 * edge, inside)
        if kind == 0:
            _rectangle(image, x + w / 2 - edge / 3, y, edge * 0.7, h, outer)


def _on_the_floor(rng: np.random.Generator, image: np.ndarray, horizon: int) -> None:
    """Draws a ball or a box with a shadow."""
    height, width = image.shape[:2]
    depth = rng.uniform(0.1, 0.9)
    size = (0.05 + 0.1 * depth) * width * rng.uniform(0.7, 1.4)
    x, y = rng.uniform(0, width), horizon + depth * (height - horizon)
    color = _thing_color(rng)
    shadow = image.copy()
    cv2.ellipse(shadow, (int(x), int(y)), (max(1, int(0.7 * size)), max(1, int(0.2 * size))), 0, 0, 360, (0, 0, 0), -1)
    image += 0.35 * (shadow - image)
    if rng.uniform() < 0.5:
        for share, glow in ((1.0, 0.8), (0.75, 1.0), (0.4, 1.15)):
            center = (int(x - (1 - share) * 0.2 * size), int(y - 0.5 * size - (1 - share) * 0.2 * size))
            cv2.circle(image, center, max(1, int(0.5 * size * share)), (color * glow).tolist(), -1)
    else:
        _rectangle(image, x - size / 2, y - size, size, size, color)
        _rectangle(image, x - size / 2, y - size, size, 0.2 * size, color * 1.15)


def _rectangle(image: np.ndarray, x: float, y: float, w: float, h: float, color: Color) -> None:
    if w >= 1 and h >= 1:
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), np.asarray(color, float).tolist(), -1)


def light(rng: np.random.Generator) -> Light:
    """Draws a light from the front, above and to one side; nearly white, so that colours keep their names."""
    direction = rng.normal(size=3) * (0.6, 0.25, 0.25) + (0.0, -0.7, -0.7)
    warmth = rng.uniform(-0.05, 0.05)
    return Light(
        (float(direction[0]), float(direction[1]), float(direction[2])),
        (1 + warmth, 1.0, 1 - warmth),
        float(rng.uniform(0.42, 0.6)),
    )
