"""GLB (glTF 2.0): a skinned body with a node for each of SMPL's joints, posed, and animated if it has several poses.

The skin uses linear blend skinning with four joints per vertex. For a single pose, the rest mesh includes SMPL's pose
blend shapes, so the posed surface is the body model's. For a motion it does not (that would take 207 morph targets).
Axes: y up, z towards the viewer, metres. Source: Khronos glTF 2.0, sections 3.7.3 (skins), 3.11 (animations) and 4.4
(GLB).
"""

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pose_rft import __version__
from pose_rft.body.joints import SMPL24
from pose_rft.export.motion import Motion, Rig, upright

FLOAT, UNSIGNED, BYTE = 5126, 5125, 5121
TYPES: dict[tuple[int, ...], str] = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
INFLUENCES = 4
COLOUR = (0.36, 0.60, 0.87, 1.0)
HELD, BLENDED = "STEP", "LINEAR"


def glb(motion: Motion, rig: Rig, name: str) -> bytes:
    """Returns the file's bytes: nodes 0 (the mesh) and 1 to 24 (the joints, in SMPL's order), and one animation if
    there are several poses. Samples are held for one second each, beginning with the mean."""
    rotations, pelvis = upright(motion, rig)
    file = _Buffers()
    single = len(rotations) == 1
    primitive = _primitive(file, rig, rig.posed(motion.rotations[0]) if single else rig.vertices)
    bind = np.tile(np.eye(4), (24, 1, 1))
    bind[:, 3, :3] = -rig.joints  # column-major, as in glTF
    quaternions = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().reshape(len(rotations), 24, 4)
    content: dict[str, Any] = {
        "asset": {
            "version": "2.0",
            "generator": f"pose-rft {__version__}",
            "copyright": rig.note,
            "extras": {"body_model": rig.name, "licence": rig.note},
        },
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0, 1]}],
        "nodes": [{"name": "body", "mesh": 0, "skin": 0}, *_joints(rig, quaternions[0], pelvis[0])],
        "meshes": [{"name": "body", "primitives": [primitive]}],
        "materials": [{"name": "skin", "pbrMetallicRoughness": {"baseColorFactor": COLOUR, "metallicFactor": 0.0}}],
        "skins": [{"inverseBindMatrices": file.add(bind), "joints": list(range(1, 25)), "skeleton": 1}],
    }
    if not single:
        content["animations"] = [_animation(file, motion, quaternions, pelvis)]
    content |= {"bufferViews": file.views, "accessors": file.accessors, "buffers": [{"byteLength": len(file.data)}]}
    return _packed(content, bytes(file.data))


def _primitive(file: "_Buffers", rig: Rig, vertices: NDArray[np.float64]) -> dict[str, Any]:
    joints = np.argsort(-rig.weights, axis=1, kind="stable")[:, :INFLUENCES]
    weights = np.take_along_axis(rig.weights, joints, 1)
    joints[weights <= 0] = 0
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    attributes = {
        "POSITION": file.add(vertices, bounds=True),
        "NORMAL": file.add(_normals(vertices, rig.faces)),
        "JOINTS_0": file.add(joints, np.uint8),
        "WEIGHTS_0": file.add(weights),
    }
    return {"attributes": attributes, "indices": file.add(rig.faces.reshape(-1), np.uint32), "material": 0}


def _normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    summed = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(summed, faces[:, corner], across)
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.where(lengths > 0, summed / np.maximum(lengths, 1e-12), [0.0, 1.0, 0.0])


def _joints(rig: Rig, quaternions: NDArray[np.float64], pelvis: NDArray[np.float64]) -> list[dict[str, Any]]:
    bones, nodes = rig.bones(), []
    for joint, joint_name in enumerate(SMPL24.joints):
        children = [1 + child for child, parent in enumerate(rig.parents) if child and parent == joint]
        place = bones[joint] if joint else pelvis
        node = {"name": joint_name, "rotation": quaternions[joint].tolist(), "translation": place.tolist()}
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _animation(
    file: "_Buffers", motion: Motion, quaternions: NDArray[np.float64], pelvis: NDArray[np.float64]
) -> dict[str, Any]:
    how = HELD if motion.of == "samples" else BLENDED
    times = file.add(motion.times, bounds=True)
    flips = np.cumsum(np.sum(quaternions[1:] * quaternions[:-1], -1) < 0, axis=0) % 2  # take the short way round
    quaternions = quaternions * np.concatenate([np.ones((1, 24)), 1 - 2.0 * flips])[..., None]
    outputs = [("translation", 1, pelvis)]
    outputs += [("rotation", 1 + joint, quaternions[:, joint]) for joint in range(24)]
    samplers = [{"input": times, "output": file.add(values), "interpolation": how} for _, _, values in outputs]
    channels = [
        {"sampler": index, "target": {"node": node, "path": path}} for index, (path, node, _) in enumerate(outputs)
    ]
    return {"name": motion.of, "samplers": samplers, "channels": channels}


class _Buffers:
    """The binary chunk: arrays one after another, each with its buffer view and accessor."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: NDArray[Any], kind: Any = np.float32, bounds: bool = False) -> int:
        """Appends an array and returns the index of its accessor."""
        array = np.ascontiguousarray(values, kind)
        component = {np.float32: FLOAT, np.uint32: UNSIGNED, np.uint8: BYTE}[kind]
        self.data += bytes(-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes})
        self.data += array.tobytes()
        accessor = {"bufferView": len(self.views) - 1, "componentType": component, "count": len(array)}
        accessor["type"] = TYPES[array.shape[1:]]  # type: ignore[assignment]
        if bounds:
            accessor["min"], accessor["max"] = (np.atleast_1d(f(array, axis=0)).tolist() for f in (np.min, np.max))
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _packed(content: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, length)
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
