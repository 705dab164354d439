"""Warp kernels of the renderer: vertex normals, a triangle z-buffer, shading. Source: standard scan conversion.

On the CPU warp runs the threads of a kernel one after the other, so the depth test needs no atomic operation; these
kernels are launched on the CPU only. Compiled once per user (2 s) into warp's kernel cache, see `kernel_cache`.
"""

# ruff: noqa: UP018, SIM102
# (In a kernel `float(0.0)` is a variable but a literal is a constant; warp evaluates both sides of `and`.)
# mypy cannot read warp's annotations, which are values.
# mypy: ignore-errors

import os

import warp as wp

from pose_rft.render.kernel_cache import private_cache


def _start_quietly() -> None:
    """Starts warp without its banner and its line about a missing GPU driver, which native code writes to stderr."""
    wp.config.log_level = wp.LOG_ERROR
    if (cache := private_cache()) is not None:
        wp.config.kernel_cache_dir = str(cache)
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        wp.init()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


_start_quietly()
# No gradients: halves the compile time. No fused multiply-add: only some CPUs have it, and it rounds differently.
wp.set_module_options({"enable_backward": False, "fuse_fp": False})


@wp.kernel
def vertex_normals(points: wp.array(dtype=wp.vec3), faces: wp.array(dtype=wp.vec3i), normals: wp.array(dtype=wp.vec3)):
    """Adds each face's normal, weighted by its area, to its corners."""
    face = faces[wp.tid()]
    a = points[face[0]]
    normal = wp.cross(points[face[1]] - a, points[face[2]] - a)
    for corner in range(3):
        normals[face[corner]] = normals[face[corner]] + normal


@wp.kernel
def rasterise(
    screen: wp.array(dtype=wp.vec3),  # x, y in px, z = depth
    faces: wp.array(dtype=wp.vec3i),
    height: int,
    width: int,
    first_face: int,
    depth: wp.array2d(dtype=float),
    face_of: wp.array2d(dtype=int),
    weights: wp.array2d(dtype=wp.vec2),
):
    """Finds the nearest face and its barycentric weights at each pixel centre; culls back faces."""
    t = wp.tid()
    face = faces[t]
    a = screen[face[0]]
    b = screen[face[1]]
    c = screen[face[2]]
    if a[2] <= 0.0 or b[2] <= 0.0 or c[2] <= 0.0:
        return
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if area > -1.0e-9:  # y points down, so faces towards the camera have negative area
        return
    scale = 1.0 / area
    left = wp.max(int(wp.ceil(wp.min(wp.min(a[0], b[0]), c[0]) - 0.5)), 0)
    right = wp.min(int(wp.floor(wp.max(wp.max(a[0], b[0]), c[0]) - 0.5)), width - 1)
    top = wp.max(int(wp.ceil(wp.min(wp.min(a[1], b[1]), c[1]) - 0.5)), 0)
    bottom = wp.min(int(wp.floor(wp.max(wp.max(a[1], b[1]), c[1]) - 0.5)), height - 1)
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            px = float(x) + 0.5
            py = float(y) + 0.5
            u = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) * scale
            v = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) * scale
            w = 1.0 - u - v
            if u >= 0.0 and v >= 0.0 and w >= 0.0:
                z = u * a[2] + v * b[2] + w * c[2]
                if z < depth[y, x]:
                    depth[y, x] = z
                    face_of[y, x] = first_face + t
                    weights[y, x] = wp.vec2(u, v)


@wp.kernel
def shade(
    covered: wp.array(dtype=int),  # pixels to colour, row by row
    face_of: wp.array2d(dtype=int),
    weights: wp.array2d(dtype=wp.vec2),
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=wp.vec3i),
    colors: wp.array(dtype=wp.vec3),
    first_face: int,
    light: wp.vec3,
    light_color: wp.vec3,
    ambient: float,
    to_shadow: wp.mat44,
    shadow_map: wp.array2d(dtype=float),
    image: wp.array2d(dtype=wp.vec3),
):
    """Colours each pixel of one mesh: ambient light brighter from above, a lamp with soft shadow, a specular sheen."""
    pixel = covered[wp.tid()]
    y = pixel // face_of.shape[1]
    x = pixel - y * face_of.shape[1]
    t = face_of[y, x] - first_face
    face = faces[t]
    u = weights[y, x][0]
    v = weights[y, x][1]
    w = 1.0 - u - v
    normal = wp.normalize(u * normals[face[0]] + v * normals[face[1]] + w * normals[face[2]])
    point = u * points[face[0]] + v * points[face[1]] + w * points[face[2]]
    lit = float(0.0)
    facing = wp.dot(normal, light)
    if facing > 0.0:
        place = wp.transform_point(to_shadow, point + normal * 0.01)
        size = shadow_map.shape[0]
        for dy in range(2):
            for dx in range(2):
                sx = int(wp.floor(place[0] - 0.5)) + dx
                sy = int(wp.floor(place[1] - 0.5)) + dy
                share = 1.0 - wp.abs(place[0] - 0.5 - float(sx))
                share = share * (1.0 - wp.abs(place[1] - 0.5 - float(sy)))
                free = float(1.0)
                if sx >= 0 and sy >= 0 and sx < size and sy < size:
                    if shadow_map[sy, sx] < place[2] - 0.02:
                        free = 0.0
                lit = lit + share * free
    view = -wp.normalize(point)
    half = wp.normalize(light + view)
    sky = 0.5 - 0.5 * normal[1]  # y points down: 1 for a surface that looks up
    around = ambient * (0.72 + 0.38 * sky)
    lamp = lit * wp.max(facing, 0.0)
    glance = wp.max(wp.dot(normal, half), 0.0)
    glance = glance * glance  # to the 18th, without a library's power
    fourth = glance * glance
    sheen = 0.06 * lit * fourth * fourth * fourth * fourth * glance
    color = colors[t]
    strength = (1.08 - ambient) * lamp
    image[y, x] = wp.vec3(
        color[0] * (around + strength * light_color[0]) + sheen,
        color[1] * (around + strength * light_color[1]) + sheen,
        color[2] * (around + strength * light_color[2]) + sheen,
    )
