"""Posed people in front of cameras: the images of every miniature release and their ground truth.

The sample's world is SMPL's own: metres, y up, floor at y = 0; a person with identity root rotation faces +z and has
the left hand at +x. A `Person` is placed in that world once, any number of `View`s (OpenCV cameras) look at it, and a
`Shot` is one image with the people in it. Writers convert the world to the axes and units of their release.

Every random choice uses a generator derived from (seed.data, release, index) by `pose_rft.seeds`, so neither the
number of processes nor the order of work changes an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from pose_rft.body.lbs_numpy import NumpyBody, product
from pose_rft.body.model_file import Gender
from pose_rft.render.renderer import Light, Mesh, Renderer
from pose_rft.render.steps import rounded
from pose_rft.sample import stored
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.scene import Background, Outfit, Wardrobe, background, light, outfit

BETA_SD = 0.5  # moderate shapes, because body height is not visible in a cropped image
Size = tuple[int, int]  # (width, height) px


@dataclass(frozen=True, eq=False)
class View:
    """An OpenCV camera (x right, y down, z forward): `X_cam = R X_world + t`, metres, no distortion.

    K (3, 3) px, R (3, 3), t (3,).
    """

    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Width and height of the image, px."""
        return self.width, self.height

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Transforms world points (..., 3) to the camera frame, metres."""
        return (seen_along(points, self.R) + self.t).astype(points.dtype)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects camera-frame points (..., 3), metres, to px (..., 2)."""
        return project(points, self.K)


@dataclass(frozen=True, eq=False)
class Identity:
    """A person regardless of pose: betas (10,), the model's gender, clothes."""

    betas: np.ndarray
    gender: Gender
    outfit: Outfit


@dataclass(frozen=True, eq=False)
class Person:
    """An identity in a pose at a position in the sample's world.

    rotations (24, 3, 3) relative to the parent joint, the root's relative to the world; transl (3,): SMPL's, so model
    vertices + transl are world points; vertices (V, 3) and joints (24, 3): world frame, metres.
    """

    identity: Identity
    rotations: np.ndarray
    transl: np.ndarray
    vertices: np.ndarray = field(repr=False)
    joints: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Seen:
    """A `Person` seen by one camera, with everything in the camera frame.

    rotations (24, 3, 3), transl (3,), vertices (V, 3), joints (24, 3), metres; mask (H, W) bool: pixels in which this
    person is visible; joints2d (24, 2) px.
    """

    person: Person
    rotations: np.ndarray
    transl: np.ndarray
    vertices: np.ndarray = field(repr=False)
    joints: np.ndarray = field(repr=False)
    joints2d: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Shot:
    """An image (H, W, 3) uint8 RGB, its camera, its people (in the order given) and its background."""

    image: np.ndarray = field(repr=False)
    view: View
    seen: tuple[Seen, ...]
    background: Background


def project(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Projects camera-frame points (..., 3) to px (..., 2) with K (3, 3), no distortion."""
    return (points[..., :2] / points[..., 2:]) * np.array([K[0, 0], K[1, 1]]) + K[:2, 2]


def seen_along(points: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """`points @ axes.T` for points (..., 3) and axes (3, 3), with the same order of additions on every machine."""
    x, y, z = points[..., :1], points[..., 1:2], points[..., 2:]
    seen: np.ndarray = x * axes[:, 0] + y * axes[:, 1] + z * axes[:, 2]
    return seen


def exact_view(K: np.ndarray, R: np.ndarray, t: np.ndarray, size: Size) -> View:
    """Returns a view rounded so that it is the same on every machine: R to 1e-6, t to a micrometre, K to 1e-4 px."""
    return View(rounded(K, 4), rounded(R, 6), rounded(t, 6), *size)


def look_at(eye: np.ndarray, target: np.ndarray, roll: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns world-to-camera (R, t) of an OpenCV camera at `eye` (3,) that looks at `target` (3,).

    roll: degrees by which the image is rotated clockwise relative to an upright camera's.
    """
    forward = (target - eye) / np.linalg.norm(target - eye)
    down = np.array([0.0, -1.0, 0.0]) + forward[1] * forward
    down /= np.linalg.norm(down)
    right = np.cross(down, forward)
    if roll:
        cosine, sine = np.cos(np.deg2rad(roll)), np.sin(np.deg2rad(roll))
        right, down = cosine * right - sine * down, sine * right + cosine * down
    R = np.stack([right, down, forward])
    return R, -R @ eye


def orbit(target: np.ndarray, azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """Returns a camera centre (3,) around `target`; degrees; azimuth 0 is in front (+z), positive towards +x."""
    a, e = np.deg2rad([azimuth, elevation])
    return target + distance * np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


def fixed_view(size: Size, azimuth: float, elevation: float, distance: float, tall: float = 2.4) -> View:
    """A camera on a stand, `distance` metres from the centre of the scene, where it sees `tall` metres of height."""
    width, height = size
    target = np.array([0.0, 0.42 * tall, 0.0])
    R, t = look_at(orbit(target, azimuth, elevation, distance), target)
    focal = height * distance / tall
    return exact_view(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]), R, t, size)


def framed_view(
    rng: np.random.Generator,
    people: Sequence[Person],
    size: Size,
    fill: tuple[float, float] = (0.6, 0.9),
    azimuth: tuple[float, float] = (-20.0, 20.0),
    elevation: tuple[float, float] = (-5.0, 20.0),
    distance: tuple[float, float] = (2.6, 6.0),
) -> View:
    """A photographer's camera: aimed at `people`, who fill a share (drawn from `fill`) of the tighter image side."""
    # Every tenth vertex is enough to frame a body and ten times as fast.
    points = np.concatenate([person.vertices[::10] for person in people])
    middle = (points.min(0) + points.max(0)).astype(np.float64) / 2
    eye = orbit(middle, rng.uniform(*azimuth), rng.uniform(*elevation), rng.uniform(*distance))
    return aimed_view(points, eye, size, rng.uniform(*fill), rng.uniform(-0.5, 0.5, 2))


def aimed_view(
    points: np.ndarray, eye: np.ndarray, size: Size, share: float, jitter: np.ndarray, roll: float = 0.0
) -> View:
    """A camera at `eye`, framed so that `points` (N, 3) fill `share` of the tighter image side.

    jitter: (2,) in [-0.5, 0.5], position of the points within the remaining margin; roll as in `look_at`.
    """
    width, height = size
    # Under perspective, the 2D bounding box is not centred on the middle of the points, so aim twice.
    target = (points.min(0) + points.max(0)).astype(np.float64) / 2
    for _ in range(2):
        R, t = look_at(eye, target, roll)
        rays = points @ R.T + t
        plane = rays[:, :2] / rays[:, 2:]
        low, high = plane.min(0), plane.max(0)
        offset = np.array([*(low + high) / 2, 0.0]) * np.linalg.norm(target - eye)
        target = target + R.T @ offset
    R, t = look_at(eye, target, roll)
    rays = points @ R.T + t
    plane = rays[:, :2] / rays[:, 2:]
    low, high = plane.min(0), plane.max(0)
    focal = share * min(width / (high[0] - low[0]), height / (high[1] - low[1]))
    # Off-centre people: re-aim within the remaining margin; the principal point stays at the image centre.
    margin = (np.array([width, height]) - focal * (high - low)) / focal * jitter * 0.6
    target = target + R.T @ np.array([*margin, 0.0]) * np.linalg.norm(target - eye)
    R, t = look_at(eye, target, roll)
    return exact_view(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]), R, t, size)


Dress = Callable[[np.random.Generator, Wardrobe, NumpyBody], Outfit]
# Paints into an image (H, W, 3) float32, in front of the people; returns the covered pixels (H, W) bool.
Props = Callable[[np.random.Generator, np.ndarray, Sequence[Seen]], np.ndarray]


def betas_of(rng: np.random.Generator) -> np.ndarray:
    """Draws moderate betas (10,)."""
    return rounded(np.clip(rng.normal(0.0, BETA_SD, 10), -2.0, 2.0), 6)


class Studio:
    """Body models and renderer of one process; its output depends only on the arguments, generators included."""

    def __init__(self, body_models: Path) -> None:
        self.folder = body_models
        self.renderer = Renderer(self.body().faces)

    @cache  # noqa: B019 (one studio per process)
    def body(self, gender: Gender = "neutral") -> NumpyBody:
        """Returns the body model of a gender, loaded on first use."""
        return NumpyBody(self.folder, gender)

    @cache  # noqa: B019
    def wardrobe(self, gender: Gender = "neutral") -> Wardrobe:
        """Returns the wardrobe for a gender's body, built on first use."""
        return Wardrobe(self.body(gender))

    @cache  # noqa: B019
    def owners(self, gender: Gender = "neutral") -> np.ndarray:
        """Returns, for each vertex, the joint with the largest skinning weight, (V,)."""
        return self.body(gender).weights.argmax(1)

    def identity(self, rng: np.random.Generator, gender: Gender = "neutral", dress: Dress | None = None) -> Identity:
        """Draws a new identity, in a plain outfit unless `dress` chooses another."""
        betas = betas_of(rng)
        if dress is not None:
            return Identity(betas, gender, dress(rng, self.wardrobe(gender), self.body(gender)))
        return Identity(betas, gender, outfit(rng, self.wardrobe(gender)))

    def place(self, identity: Identity, rotations: np.ndarray, at: tuple[float, float] = (0.0, 0.0)) -> Person:
        """Puts a pose, rotations (24, 3, 3) in the body frame, on the floor with the pelvis over (x, z)."""
        rotations = rounded(rotations, 6)  # removes the last bits, which differ between machines
        vertices, joints = self.body(identity.gender).vertices(rotations, identity.betas, np.zeros(3))
        transl = rounded([at[0] - joints[0, 0], -float(vertices[:, 1].min()), at[1] - joints[0, 2]], 6)
        return Person(identity, rotations, transl, vertices + transl.astype(np.float32), joints + transl)

    def somebody(
        self, rng: np.random.Generator, gender: Gender = "neutral", at: tuple[float, float] = (0.0, 0.0)
    ) -> Person:
        """Draws a new identity in a new pose."""
        return self.place(self.identity(rng, gender), sample_pose(rng), at)

    def shoot(
        self,
        rng: np.random.Generator,
        people: Sequence[Person],
        view: View,
        backdrop: Background | None = None,
        noise: float = 0.012,
        occluder: float = 0.0,
        props: Props | None = None,
        lamp: Light | None = None,
    ) -> Shot:
        """Renders one image; draws a new `backdrop` or `lamp` if none is given.

        occluder: probability of a rectangle in front of the people; props: paints further occluders.
        """
        if backdrop is None:
            backdrop = background(rng, (view.height, view.width))
        seen = [self._see(person, view) for person in people]
        outfits = [s.person.identity.outfit for s in seen]
        meshes = [Mesh(s.vertices, o.face_colors, o.thickness) for s, o in zip(seen, outfits, strict=True)]
        rendered, shares = self.renderer.render_people(
            meshes, view.K, (view.height, view.width), backdrop.image, lamp or light(rng)
        )
        canvas, masks = rendered.astype(np.float32) / 255, shares > 0.5
        if rng.uniform() < occluder:
            masks &= ~_bar(rng, canvas)
        if props is not None:
            masks &= ~props(rng, canvas, seen)
        canvas *= rng.uniform(0.88, 1.1)
        if noise:
            canvas += noise * rng.standard_normal(canvas.shape, np.float32)
        image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
        return Shot(image, view, tuple(replace(s, mask=m) for s, m in zip(seen, masks, strict=True)), backdrop)

    def _see(self, person: Person, view: View) -> Seen:
        rotations = person.rotations.copy()
        rotations[0] = product(view.R, rotations[0])
        pelvis = person.joints[0] - person.transl  # SMPL rotates about the rest-pose pelvis, not about the origin
        transl = seen_along(person.joints[0], view.R) + view.t - pelvis
        vertices = view.to_camera(person.vertices)
        joints = view.to_camera(person.joints)
        nothing = np.zeros((0, 0), bool)
        return Seen(person, rotations, transl, vertices, joints, view.project(joints), nothing)


def _bar(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Paints a plain rectangle into `canvas`; returns its pixels (H, W) bool."""
    height, width = canvas.shape[:2]
    corner = rng.uniform(0, 0.8, 2) * (width, height)
    extent = rng.uniform(0.08, 0.25, 2) * min(width, height)
    x0, y0 = corner.astype(int)
    x1, y1 = (corner + extent).astype(int)
    cv2.rectangle(canvas, (int(x0), int(y0)), (int(x1), int(y1)), rng.uniform(0.1, 0.9, 3).tolist(), -1)
    covered = np.zeros((height, width), bool)
    covered[y0 : y1 + 1, x0 : x1 + 1] = True
    return covered


def box_of(mask_or_points: np.ndarray, size: Size) -> tuple[float, float, float, float]:
    """Returns the COCO box (x, y, width, height) px of points (N, 2), clipped to the image."""
    low = np.clip(mask_or_points.min(0), 0, size)
    high = np.clip(mask_or_points.max(0), 0, size)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def encode(image: np.ndarray, extension: str = "jpg", quality: int = 92) -> bytes:
    """Encodes RGB (H, W, 3) uint8 as the bytes of a .jpg or .png."""
    if extension == "png":
        return stored.png(image)
    done, data = cv2.imencode(f".{extension}", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()
