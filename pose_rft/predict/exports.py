"""Exports prediction lines to files: one for each person of a photograph or video, or for each sentence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.smpl import BodyModel
from pose_rft.errors import PoseRftError
from pose_rft.export.amass import amass
from pose_rft.export.bvh import bvh
from pose_rft.export.glb import glb
from pose_rft.export.motion import KINDS, UPSIDE, Kind, Motion, Rig
from pose_rft.io import atomic, door
from pose_rft.io.json_files import read_json
from pose_rft.predict.store import PREDICTIONS, Head, checked_name, heads, of_predict, read_lines, readable, writing

EXTENSIONS: Mapping[Kind, str] = {"glb": "glb", "bvh": "bvh", "amass": "npz", "obj": "obj"}
NOTE = "LICENCE_OF_THE_BODY.txt"


def parse_kinds(text: str, option: str) -> list[Kind]:
    """Parses a list such as `glb,bvh` into kinds.

    Raises:
        PoseRftError: a kind is unknown.
    """
    found: list[Kind] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        kind = next((kind for kind in KINDS if kind == name), None)
        if kind is None:
            raise PoseRftError(f"{option} {name!r:.40} is not known; choose of {', '.join(KINDS)}.")
        found.append(kind)
    return found


def export_file(
    path: Path, kinds: Sequence[Kind], out: Path | None, body: BodyModel, name: str | None = None
) -> list[Path]:
    """Exports all inputs of a predictions file (or of a results folder), or only the one called `name`.

    Raises:
        PoseRftError: no such file, no predictions in it, none of that name, or a target exists with other content.
    """
    path = path / PREDICTIONS if path.is_dir() else path
    if path.suffix == ".json":
        line = read_json(path, dict)
        if name not in (None, path.stem):
            raise PoseRftError(f"{readable(str(path))} holds one prediction; leave --name away.")
        return _whole(_files([line], path.stem, Rig.of(body), kinds, out or path.parent, path, False))
    names: dict[str, str] = {}
    for head in heads(path):
        if head.input not in names:
            with of_predict(path):
                names[head.input] = checked_name(next(read_lines(path, [head])).get("name"))
    wanted = {key: own for key, own in names.items() if name in (None, own)}
    if not wanted:
        known = ", ".join(list(names.values())[:10]) or "no predictions at all"
        raise PoseRftError(f"{readable(str(path))} holds no input called {name}; it has {known}.")
    return _whole(export_inputs(path, wanted, kinds, out or path.parent, body))


def _whole(made: Iterable[Path | PoseRftError]) -> list[Path]:
    """
    Raises:
        PoseRftError: the first error, after all other files are written.
    """
    results = list(made)
    for one in results:
        if isinstance(one, PoseRftError):
            raise one
    return [one for one in results if isinstance(one, Path)]


def export_inputs(
    path: Path, wanted: Mapping[str, str], kinds: Sequence[Kind], out: Path, body: BodyModel, replace: bool = False
) -> Iterator[Path | PoseRftError]:
    """Exports the wanted inputs ({key: name}) of a predictions file; yields each target's path, or its error.

    All poses of one person of a video are held in memory (about 2 KB a frame); pictures are not.

    Args:
        replace: overwrite files that have other content.
    Raises:
        PoseRftError: no such file, or this version did not write one of its lines.
    """
    rig = Rig.of(body)
    people: dict[str, dict[int, list[Head]]] = {}
    for head in heads(path):
        if head.input in wanted:
            who = head.index if head.track is None else head.track
            people.setdefault(head.input, {}).setdefault(who, []).append(head)
    for key, own in people.items():
        for who, lines in sorted(own.items()):
            name = wanted[key] if len(own) == 1 else f"{wanted[key]}_{who}"
            try:
                with of_predict(path):
                    needed = [_needed(line) for line in read_lines(path, lines)]
                yield from _files(needed, name, rig, kinds, out, path, replace)
            except PoseRftError as error:
                yield error


def _needed(line: dict[str, Any]) -> dict[str, Any]:
    """Keeps only the fields of a line that a motion needs, because a video has many lines."""
    names = ["camera", "kind", "frame", "frames_per_second", "body_model"]
    names += [] if line.get("kind") == "video" else ["samples_rotation_matrices"]
    kept = {name: line[name] for name in names if name in line}
    return kept | {"rotation_matrices": np.array(line["rotation_matrices"], np.float32)}


def _files(
    lines: Sequence[dict[str, Any]], name: str, rig: Rig, kinds: Sequence[Kind], out: Path, path: Path, replace: bool
) -> Iterator[Path | PoseRftError]:
    with of_predict(path):
        motion = Motion.of_lines(lines)
    if (made := lines[0].get("body_model")) not in (None, rig.name):
        raise PoseRftError(f"{readable(str(path))} was predicted with the body {made}, and this one is {rig.name}.")
    for kind in kinds:
        target = out / f"{name}.{EXTENSIONS[kind]}"
        try:
            _write(target, content(kind, motion, rig, name), replace)
            yield target
        except PoseRftError as error:
            yield error
    if "bvh" in kinds:  # BVH has no comments to hold the licence
        _write(out / NOTE, f"{rig.note}\n".encode(), True)


def content(kind: Kind, motion: Motion, rig: Rig, name: str) -> bytes:
    """Returns the content of a motion's file; a GLB uses `name` as its scene name."""
    if kind == "glb":
        return glb(motion, rig, name)
    if kind == "amass":
        return amass(motion, rig)
    return (bvh(motion, rig) if kind == "bvh" else _obj(motion, rig)).encode()


def _obj(motion: Motion, rig: Rig) -> str:
    """Returns the mesh of the first pose; y up, metres."""
    turns, joints = rig.chain(motion.rotations[:1], rig.joints[:1] + motion.transl[:1])
    shift = joints[0] - np.einsum("jab,jb->ja", turns[0], rig.joints)
    per_vertex = np.einsum("vj,jab->vab", rig.weights, turns[0])
    surface = np.einsum("vab,vb->va", per_vertex, rig.posed(motion.rotations[0])) + rig.weights @ shift
    lines = [f"# {rig.note}", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in surface @ UPSIDE)]
    return "\n".join([*lines, *(f"f {a} {b} {c}" for a, b, c in rig.faces + 1)]) + "\n"


def _write(target: Path, data: bytes, replace: bool) -> None:
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not replace and door.read_file(target) != data:
            raise PoseRftError(
                f"{readable(str(target))} is there with another content and stays; name another folder with --out, or "
                "move it away."
            )
        atomic.write_bytes(target, data)
