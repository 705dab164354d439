"""Opens GLB and BVH exports in Blender: measures how far joints are from the predictions' and renders the body.

Blender comes as `bpy` from PyPI, which requires an older numpy than this project, so it gets a folder of its own, and
this script imports nothing from the project:

    pip install --target FOLDER bpy==5.0.1
    PYTHONPATH=FOLDER python benchmarks/blender.py predictions --picture body.png

Prints one line per file that `pose-rft predict --export glb,bvh` wrote: the largest distance over the 24 joints, mm. Of
a video or of samples, only the first pose is checked.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

MILLIMETRE = 1e-3
CENTIMETRE = 0.01
SIDE, RAYS = 512, 16  # of the picture: px, samples per pixel


def expected(line: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns {joint: (3,) metres} of a prediction in Blender's axes (x right, y away from the viewer, z up)."""
    camera = np.array(line["joints_metres_camera"])  # x right, y down, z forward
    return dict(zip(line["joint_names"], camera[:, [0, 2, 1]] * (1, 1, -1), strict=True))


def first_poses(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns {stem of the exported files: the prediction of their first pose}; a video has one stem per track."""
    people: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for text in (folder / "predictions.jsonl").read_text().splitlines():
        line = json.loads(text)
        who = line["index"] if line.get("track") is None else line["track"]
        people[line["name"]].setdefault(who, line)
    return {
        (f"{name}_{who}" if len(found) > 1 else name): line
        for name, found in people.items()
        for who, line in found.items()
    }


def open_alone(path: Path) -> dict[str, np.ndarray]:
    """Opens a file in an otherwise empty scene, at its first pose; returns {bone: (3,) metres}."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    if path.suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=str(path))
        bpy.context.scene.frame_set(0)
    else:
        bpy.ops.import_anim.bvh(filepath=str(path), global_scale=CENTIMETRE, axis_forward="-Z", axis_up="Y")
        bpy.context.scene.frame_set(1)
    (rig,) = (thing for thing in bpy.data.objects if thing.type == "ARMATURE")
    return {bone.name: np.array(rig.matrix_world @ bone.head) for bone in rig.pose.bones}


def paint(path: Path, picture: Path) -> None:
    """Renders the body of a GLB from the same side as the photograph's camera, from slightly above."""
    import bpy
    from mathutils import Vector

    open_alone(path)
    scene = bpy.context.scene
    body = next(thing for thing in bpy.data.objects if thing.type == "MESH" and thing.vertex_groups)
    posed = body.evaluated_get(bpy.context.evaluated_depsgraph_get())
    points = np.array([posed.matrix_world @ vertex.co for vertex in posed.data.vertices])
    middle, height = Vector((points.min(0) + points.max(0)) / 2), float(np.ptp(points, 0).max())
    eye = middle + Vector((0.6, -2.2, 0.5)) * height
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = 3
    for thing in (camera, sun):
        scene.collection.objects.link(thing)
        thing.location, thing.rotation_euler = eye, (middle - eye).to_track_quat("-Z", "Y").to_euler()
    scene.camera, scene.world = camera, bpy.data.worlds.new("world")
    scene.render.engine, scene.cycles.samples = "CYCLES", RAYS  # on the CPU: no display is needed
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.render.filepath = str(picture.resolve())
    bpy.ops.render.render(write_still=True)


def main() -> None:
    """Entry point; exits with status 1 if a joint is more than a millimetre away or no GLB was exported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, help="what `pose-rft predict --out` named")
    parser.add_argument("--picture", type=Path, help="where a PNG of the first GLB's body goes")
    options = parser.parse_args()
    apart = {}
    for stem, line in first_poses(options.predictions).items():
        for path in (options.predictions / f"{stem}{kind}" for kind in (".glb", ".bvh")):
            if path.is_file():
                found = open_alone(path)
                apart[path] = max(float(np.linalg.norm(found[name] - at)) for name, at in expected(line).items())
    glbs = [path for path in apart if path.suffix == ".glb"]
    if not glbs:
        sys.exit(f"error: {options.predictions} has no GLB; run pose-rft predict with --export glb,bvh.")
    if options.picture:
        paint(glbs[0], options.picture)
    for path, distance in apart.items():
        print(f"{path.name}: {distance / MILLIMETRE:.4f} mm")
    sys.exit(max(apart.values()) > MILLIMETRE)


if __name__ == "__main__":
    main()
