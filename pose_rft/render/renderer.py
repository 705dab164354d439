"""Renders posed bodies: a z-buffer on the CPU, 2x supersampled, with smooth normals, a lamp and its shadow.

Works for any mesh (SMPL, the stand-in), needs no display and no GPU, and takes a few milliseconds per picture. Used by
the miniature releases and for pictures of predictions. Pixels are the same on every machine: no operation is left to a
library that chooses its instructions by CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pose_rft.render.steps import in_steps, rounded

SUPERSAMPLING = 2
SHADOW_PIXELS = 192
FAR = 1e9


@dataclass(frozen=True)
class Light:
    """direction: towards the lamp, camera frame (x right, y down, z forward); color RGB; ambient in [0, 1]."""

    direction: tuple[float, float, float] = (-0.45, -0.75, -0.65)
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.5


DAYLIGHT = Light()


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices (V, 3) metres in the camera frame; face_colors (F, 3) RGB in [0, 1]; thickness (V,) metres by which the
    drawn surface stands off the vertices, along their normals."""

    vertices: np.ndarray
    face_colors: np.ndarray
    thickness: np.ndarray | None = None


class Renderer:
    """Renders meshes that share `faces` (F, 3), counter-clockwise seen from outside. Cheap to build in a worker."""

    def __init__(self, faces: np.ndarray) -> None:
        import warp as wp

        from pose_rft.render import raster

        self._wp, self._raster = wp, raster
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        self._faces: object = wp.array(self.faces, dtype=wp.vec3i, device="cpu")

    def render(
        self,
        vertices: np.ndarray,
        face_colors: np.ndarray,
        K: np.ndarray,
        size: tuple[int, int],
        background: np.ndarray,
        light: Light = DAYLIGHT,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Renders one body over a background.

        Args:
            vertices: (V, 3) metres, camera frame; parts behind the camera are not drawn.
            face_colors: (F, 3) RGB in [0, 1]; K: (3, 3) px; size: (H, W).
            background: (H, W, 3) or (3,) RGB in [0, 1].
        Returns:
            image (H, W, 3) uint8 RGB and mask (H, W) float32: the share of each pixel that the body covers.
        """
        image, masks = self.render_people([Mesh(vertices, face_colors)], K, size, background, light)
        return image, masks[0]

    def render_people(
        self,
        people: Sequence[Mesh],
        K: np.ndarray,
        size: tuple[int, int],
        background: np.ndarray,
        light: Light = DAYLIGHT,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Renders several bodies with one depth buffer: image (H, W, 3) uint8, masks (N, H, W) of the visible parts."""
        wp, raster = self._wp, self._raster
        height, width = size
        shape = (height * SUPERSAMPLING, width * SUPERSAMPLING)
        depth = np.full(shape, FAR, np.float32)
        face_of = np.full(shape, -1, np.int32)
        weights = np.zeros((*shape, 2), np.float32)
        image = np.zeros((*shape, 3), np.float32)
        buffers = [self._share(depth, float), self._share(face_of, int), self._share(weights, wp.vec2)]
        toward = np.array(light.direction, np.float64)
        toward = rounded(toward / np.sqrt((toward * toward).sum()), 6)

        def draw(screen: np.ndarray, first: int, rows: int, columns: int, targets: list[object]) -> None:
            points = self._share(screen, wp.vec3)
            wp.launch(
                raster.rasterise,
                dim=len(self.faces),
                inputs=[points, self._faces, rows, columns, first, *targets],
                device="cpu",
            )

        shapes = [self._drawn(person) for person in people]
        for i, vertices in enumerate(shapes):
            draw(_project(vertices, K), i * len(self.faces), *shape, buffers)
        owner = np.where(face_of < 0, -1, face_of // len(self.faces))
        to_shadow = _shadow_camera(shapes, toward)
        shadow = np.full((SHADOW_PIXELS, SHADOW_PIXELS), FAR, np.float32)
        nobody = np.zeros(shadow.shape, np.int32)
        unused = np.zeros((*shadow.shape, 2), np.float32)
        targets = [self._share(shadow, float), self._share(nobody, int), self._share(unused, wp.vec2)]
        for vertices in shapes:
            seen_by_lamp = (vertices[:, None, :] * to_shadow[:3, :3]).sum(-1) + to_shadow[:3, 3]
            draw(np.ascontiguousarray(seen_by_lamp, np.float32), 0, SHADOW_PIXELS, SHADOW_PIXELS, targets)
        for i, (person, vertices) in enumerate(zip(people, shapes, strict=True)):
            covered = np.flatnonzero(owner == i).astype(np.int32)
            points = self._share(vertices, wp.vec3)
            normals = self._share(self._normals(vertices), wp.vec3)
            colors = self._share(np.ascontiguousarray(person.face_colors, dtype=np.float32), wp.vec3)
            wp.launch(
                raster.shade,
                dim=len(covered),
                inputs=[
                    self._share(covered, int),
                    *(buffers[1], buffers[2], points, normals, self._faces, colors, i * len(self.faces)),
                    *(wp.vec3(*map(float, toward)), wp.vec3(*light.color), light.ambient),
                    *(wp.mat44(*map(float, to_shadow.ravel())), targets[0], self._share(image, wp.vec3)),
                ],
                device="cpu",
            )
        return _composed(image, owner, len(people), size, background)

    def _normals(self, vertices: np.ndarray) -> np.ndarray:
        """Vertex normals (V, 3) float32, not normalised: lengths grow with the areas of the adjacent faces."""
        normals = np.zeros_like(vertices)
        points, sums = self._share(vertices, self._wp.vec3), self._share(normals, self._wp.vec3)
        inputs = [points, self._faces, sums]
        self._wp.launch(self._raster.vertex_normals, dim=len(self.faces), inputs=inputs, device="cpu")
        return normals

    def _drawn(self, person: Mesh) -> np.ndarray:
        """The surface to draw (V, 3) float32: the vertices, offset by the thickness if there is one."""
        vertices = np.ascontiguousarray(person.vertices, dtype=np.float32)
        if person.thickness is None:
            return vertices
        normals = self._normals(vertices)
        length = np.sqrt(normals[:, 0] ** 2 + normals[:, 1] ** 2 + normals[:, 2] ** 2) + np.float32(1e-12)
        return vertices + normals * (person.thickness / length)[:, None]

    def _share(self, values: np.ndarray, dtype: object) -> object:
        """A warp view of a numpy array, without a copy."""
        return self._wp.array(values, dtype=dtype, device="cpu", copy=False)


def _composed(
    image: np.ndarray, owner: np.ndarray, people: int, size: tuple[int, int], background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Downsamples the buffers: image (H, W, 3) uint8 over the background, masks (N, H, W); owner -1 is nobody."""
    height, width = size

    def shrink(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)

    masks = np.stack([shrink((owner == i).astype(np.float32)) for i in range(people)])
    behind = 1 - shrink((owner >= 0).astype(np.float32))[..., None]
    mixed = np.clip(shrink(in_steps(image)) + behind * np.asarray(background, np.float32), 0, 1)
    return (mixed * 255 + 0.5).astype(np.uint8), masks


def _project(vertices: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(V, 3) camera frame → x, y in supersampled px and depth; behind the camera the depth stays ≤ 0."""
    depth = vertices[:, 2]
    ahead = np.where(depth > 1e-6, depth, 1.0)
    screen = np.empty_like(vertices)
    screen[:, 0] = (vertices[:, 0] / ahead * K[0, 0] + vertices[:, 1] / ahead * K[0, 1] + K[0, 2]) * SUPERSAMPLING
    screen[:, 1] = (vertices[:, 1] / ahead * K[1, 1] + K[1, 2]) * SUPERSAMPLING
    screen[:, 2] = depth
    return screen


def _shadow_camera(shapes: Sequence[np.ndarray], toward: np.ndarray) -> np.ndarray:
    """(4, 4): camera frame → px of the shadow map and distance along the light, just wide enough for all people."""
    forward = -toward
    right = np.cross(forward, [0.0, 0.0, 1.0] if abs(forward[2]) < 0.9 else [0.0, 1.0, 0.0])
    right = rounded(right / np.sqrt((right * right).sum()), 6)
    axes = np.stack([right, np.cross(forward, right), forward])
    seen = (np.concatenate([vertices[::8] for vertices in shapes])[:, None, :] * axes).sum(-1)
    low, high = seen.min(0) - 0.05, seen.max(0) + 0.05
    scale = np.array([SHADOW_PIXELS / max(high[0] - low[0], high[1] - low[1])] * 2 + [1.0])
    camera = np.eye(4)
    camera[:3, :3] = axes * scale[:, None]
    camera[:3, 3] = -low * scale + [0.0, 0.0, 1.0]  # depth must stay positive
    return camera
