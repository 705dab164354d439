"""Varied images: what makes photographs hard, with exact labels. For the training sets and the test set `hard`.

Everyday poses and poses on the ground, upside down and in motion; seen from all sides, from above and below and by
rolled cameras; truncated by the image border, occluded by objects and people; in bulky clothes, indoors and outdoors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pose_rft.body.joints import SMPL24
from pose_rft.render.renderer import Light
from pose_rft.sample.clothes import dressed
from pose_rft.sample.hard_poses import SAMPLERS, tumbled
from pose_rft.sample.key_poses import PoseSampler
from pose_rft.sample.people import (
    Identity,
    Person,
    Seen,
    Shot,
    Size,
    Studio,
    View,
    aimed_view,
    exact_view,
    orbit,
)
from pose_rft.sample.props import in_front
from pose_rft.sample.surroundings import surroundings

EVERYDAY = PoseSampler(heading=180.0, tilt=6.0)
# Framings: for each, the joints whose surroundings the image shows.
FRAMES: Mapping[str, tuple[str, ...]] = {
    "whole": SMPL24.joints,
    "to the knees": tuple(name for name in SMPL24.joints if not name.endswith(("ankle", "foot", "knee"))),
    "to the waist": tuple(n for n in SMPL24.joints if not n.endswith(("ankle", "foot", "knee", "hip", "pelvis"))),
    "legs": tuple(
        name for name in SMPL24.joints if name.endswith(("ankle", "foot", "knee", "hip", "pelvis", "spine1"))
    ),
    "left": tuple(n for n in SMPL24.joints if not n.startswith("right_")),
}
NEAREST = 0.5  # smallest depth of a person, metres
FEWEST_JOINTS, FEWEST_PIXELS = 6, 40  # joints inside the image and visible pixels that a labelled person has at least


@dataclass(frozen=True)
class Difficulty:
    """Shares of images or people. poses: by kind of pose; frames: by framing (`FRAMES`); cut: share of the "whole"
    images that the border truncates slightly; steep: cameras far above or below; askew: strongly rolled cameras."""

    poses: Mapping[str, float]
    frames: Mapping[str, float]
    cut: float = 0.0
    steep: float = 0.0
    askew: float = 0.0
    props: float = 0.0
    others: tuple[float, ...] = (1.0,)  # probability of no other person, one, two, three


TRAINING = Difficulty(
    {"everyday": 0.36, "on the ground": 0.22, "upside down": 0.1, "in motion": 0.28, "tumbled": 0.04},
    {"whole": 0.68, "to the knees": 0.12, "to the waist": 0.1, "legs": 0.05, "left": 0.05},
    cut=0.2,
    steep=0.35,
    askew=0.12,
    props=0.35,
    others=(0.66, 0.2, 0.1, 0.04),
)


def varied_pose(rng: np.random.Generator, poses: Mapping[str, float]) -> np.ndarray:
    """Draws local rotations (24, 3, 3) with any heading."""
    kind = str(rng.choice(list(poses), p=list(poses.values())))
    if kind == "everyday":
        return EVERYDAY.sample(rng)
    if kind == "tumbled":
        return tumbled(SAMPLERS["in motion"].sample(rng), rng)
    return SAMPLERS[kind].sample(rng)


def varied_shot(
    rng: np.random.Generator,
    studio: Studio,
    size: Size,
    difficulty: Difficulty = TRAINING,
    who: Identity | None = None,
    focal: float | None = None,
) -> Shot:
    """Renders a main person (`who`, or a new one), often with others.

    focal: px; if given, the camera keeps this focal length and moves back instead of zooming. `Shot.seen` lists the
    main person first and may include people who are barely visible: see `is_labelled`.
    """
    main = studio.place(who or studio.identity(rng, dress=dressed), varied_pose(rng, difficulty.poses))
    view = varied_view(rng, studio, main, size, difficulty)
    if focal is not None:
        view = stepped_back(view, main, focal)
    people = [main, *_others(rng, studio, main, view, difficulty)]
    backdrop = surroundings(rng, view, people)
    props = in_front if rng.uniform() < difficulty.props else None
    shot = studio.shoot(rng, people, view, backdrop, noise=0.0, props=props, lamp=_lamp(rng))
    return replace(shot, image=_developed(rng, shot.image))


def is_labelled(seen: Seen) -> bool:
    """Whether enough of a person is inside the image and unoccluded for an annotator to label."""
    height, width = seen.mask.shape
    inside = ((seen.joints2d >= 0) & (seen.joints2d < (width, height))).all(1)
    return bool(inside.sum() >= FEWEST_JOINTS and seen.mask.sum() >= FEWEST_PIXELS)


def varied_view(rng: np.random.Generator, studio: Studio, main: Person, size: Size, difficulty: Difficulty) -> View:
    """Draws a camera, on any side of the person, that shows the whole person or a part."""
    frame = str(rng.choice(list(difficulty.frames), p=list(difficulty.frames.values())))
    wanted = [SMPL24.index(name) for name in FRAMES[frame]]
    points = main.vertices[::10][np.isin(studio.owners(main.identity.gender)[::10], wanted)]
    elevation = rng.uniform(-60, 60) if rng.uniform() < difficulty.steep else rng.normal(6, 8)
    # Photographs from far below are rarer than from far above.
    elevation = elevation if elevation > -25 or rng.uniform() < 0.5 else -elevation
    roll = rng.uniform(-50, 50) if rng.uniform() < difficulty.askew else rng.normal(0, 4)
    eye = orbit(
        (points.min(0) + points.max(0)).astype(np.float64) / 2,
        rng.uniform(-180, 180),
        elevation,
        1.7 * 4.0 ** rng.uniform(),
    )
    if frame != "whole":
        share = rng.uniform(0.85, 1.15)  # a tight framing, or the rest of the body would be visible after all
    else:
        share = rng.uniform(1.0, 1.4) if rng.uniform() < difficulty.cut else rng.uniform(0.55, 0.95)
    return aimed_view(points, eye, size, share, rng.uniform(-0.5, 0.5, 2), roll)


def stepped_back(view: View, main: Person, focal: float) -> View:
    """Changes the focal length (px) and moves the camera so that the person keeps the same size in the image."""
    depth = float(view.to_camera(main.joints)[:, 2].mean())
    step = max(depth * (focal / view.K[0, 0] - 1), NEAREST - float(view.to_camera(main.joints)[:, 2].min()))
    K = np.array([[focal, 0, view.width / 2], [0, focal, view.height / 2], [0, 0, 1.0]])
    return exact_view(K, view.R, view.t + np.array([0, 0, step]), view.size)


def _others(
    rng: np.random.Generator, studio: Studio, main: Person, view: View, difficulty: Difficulty
) -> Sequence[Person]:
    """Places other people around the main one, in front of the camera."""
    found = []
    for _ in range(int(rng.choice(len(difficulty.others), p=difficulty.others))):
        sideways, nearer = rng.uniform(0.45, 1.3) * rng.choice((-1, 1)), rng.uniform(-1.8, 0.9)
        right, forward = view.R[0, [0, 2]], view.R[2, [0, 2]]
        at = sideways * right - nearer * forward
        other = studio.place(
            studio.identity(rng, dress=dressed), varied_pose(rng, difficulty.poses), (float(at[0]), float(at[1]))
        )
        if view.to_camera(other.vertices[::10])[:, 2].min() > NEAREST:
            found.append(other)
    return found


def _lamp(rng: np.random.Generator) -> Light:
    """Draws a light: hard or soft, warm or cold, sometimes from the side or from behind."""
    x, y, z = rng.normal(size=3) * (0.7, 0.3, 0.6) + (0.0, -0.7, -0.5)
    warmth = rng.uniform(-0.12, 0.12)
    return Light((float(x), float(y), float(z)), (1 + warmth, 1.0, 1 - warmth), float(rng.uniform(0.35, 0.85)))


def _developed(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Imitates cameras and photo editing: exposure, contrast, colour cast, slight blur, noise."""
    width = rng.uniform(0.3, 0.9) if rng.uniform() < 0.4 else 0.0
    image = cv2.GaussianBlur(image, (3, 3), width) if width else image
    contrast, exposure = rng.uniform(0.7, 1.2), rng.uniform(-0.1, 0.1)
    cast = 1 + rng.normal(0, 0.03, 3)
    grain = rng.normal(0, rng.uniform(0.003, 0.025), image.shape[:2])[..., None]
    values = ((image / 255 - 0.5) * contrast + 0.5 + exposure) * cast + grain
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
