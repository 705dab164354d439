"""An export read by another program has the prediction's joints within a millimetre."""

import io
import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import SMPL24
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.export.amass import amass
from pose_rft.export.bvh import bvh
from pose_rft.export.glb import glb
from pose_rft.export.motion import UPSIDE, Motion, Rig
from pose_rft.io.npz import read_npz
from pose_rft.predict.exports import NOTE, export_file, parse_kinds
from pose_rft.predict.pose_files import read_pose
from pose_rft.predict.store import PREDICTIONS, SCHEMA, VERSION, line_bytes
from tests.support.bvh import read_bvh

MILLIMETRE = 1e-3
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def body(tiny_folder):
    return load_body_model(tiny_folder)


@pytest.fixture(scope="module")
def rig(body):
    return Rig.of(body)


def motion(poses, of, times=None):
    turns = Rotation.random(poses * 24, random_state=1).as_matrix().reshape(poses, 24, 3, 3)
    times = np.arange(poses) / 25 if times is None else np.array(times)
    return Motion(turns, RNG.normal((0, 0, 4), 1, (poses, 3)), times, of)


def joints(motion, rig):
    """(F, 24, 3) in axes of viewers."""
    return rig.chain(motion.rotations, rig.joints[0] + motion.transl)[1] @ UPSIDE


def parsed_glb(data):
    """The JSON of a GLB, and a function that reads an accessor."""
    length = struct.unpack("<I", data[12:16])[0]
    content, binary = json.loads(data[20 : 20 + length]), data[20 + length + 8 :]
    kinds, sizes = {5126: np.float32, 5125: np.uint32, 5121: np.uint8}, {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}

    def read(number):
        accessor = content["accessors"][number]
        start = content["bufferViews"][accessor["bufferView"]]["byteOffset"]
        count = accessor["count"] * sizes[accessor["type"]]
        return np.frombuffer(binary, kinds[accessor["componentType"]], count, start).reshape(accessor["count"], -1)

    return content, read


def test_trimesh_finds_every_joint_where_the_prediction_has_it(rig):
    one = motion(1, "pose")
    scene = trimesh.load(io.BytesIO(glb(one, rig, "x")), file_type="glb")
    found = np.stack([scene.graph.get(name)[0][:3, 3] for name in SMPL24.joints])
    assert np.abs(found - joints(one, rig)[0]).max() < MILLIMETRE


def test_the_skin_of_a_single_pose_is_the_body_models_surface(rig, body):
    one = motion(1, "pose")
    content, read = parsed_glb(glb(one, rig, "x"))
    part = content["meshes"][0]["primitives"][0]["attributes"]
    points, which, weights = (read(part[name]) for name in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
    bind = read(content["skins"][0]["inverseBindMatrices"]).reshape(24, 4, 4).transpose(0, 2, 1)
    scene = trimesh.load(io.BytesIO(glb(one, rig, "x")), file_type="glb")
    world = np.stack([scene.graph.get(name)[0] for name in SMPL24.joints]) @ bind
    blended = (world[which] * weights[..., None, None]).sum(1)
    found = (blended @ np.c_[points, np.ones(len(points))][..., None])[:, :3, 0]
    rotations, moved = torch.from_numpy(one.rotations).float(), torch.from_numpy(one.transl).float()
    expected = body.vertices(rotations, transl=moved)[0].numpy() @ UPSIDE
    assert np.abs(found - expected).max() < MILLIMETRE


@pytest.mark.parametrize("of, how", [("video", "LINEAR"), ("samples", "STEP")])
def test_an_animation_passes_through_every_pose(rig, of, how):
    several = motion(5, of, [0, 0.1, 0.2, 0.5, 0.6])
    content, read = parsed_glb(glb(several, rig, "x"))
    (animation,) = content["animations"]
    places, turns = np.zeros((5, 24, 3)) + rig.bones(), np.zeros((5, 24, 3, 3))
    for channel in animation["channels"]:
        sampler, joint = animation["samplers"][channel["sampler"]], channel["target"]["node"] - 1
        assert sampler["interpolation"] == how and np.allclose(read(sampler["input"])[:, 0], several.times)
        values = read(sampler["output"])
        if channel["target"]["path"] == "translation":
            places[:, joint] = values
        else:
            turns[:, joint] = Rotation.from_quat(values).as_matrix()
            assert (np.sum(values[1:] * values[:-1], 1) >= 0).all()  # the short way round
    found = rig.chain(turns, places[:, 0])[1]
    assert np.abs(found - joints(several, rig)).max() < MILLIMETRE
    assert [content["nodes"][1 + i]["name"] for i in range(24)] == list(SMPL24.joints)


@pytest.mark.parametrize("poses", [1, 6])
def test_a_bvh_reader_finds_every_joint_where_the_prediction_has_it(rig, poses):
    some = motion(poses, "video")
    found, seconds = read_bvh(bvh(some, rig))
    expected = joints(some, rig)
    assert set(found) == set(SMPL24.joints) and (poses == 1 or seconds == pytest.approx(0.04))
    for index, name in enumerate(SMPL24.joints):
        assert np.abs(found[name] - expected[:, index]).max() < MILLIMETRE, name


def test_an_amass_file_is_the_same_body_with_z_up(rig, body, tmp_path):
    some = motion(4, "video")
    (tmp_path / "a.npz").write_bytes(amass(some, rig))
    content = read_npz(tmp_path / "a.npz")
    assert content["poses"].shape == (4, 156) and content["mocap_framerate"] == pytest.approx(25)
    turns = Rotation.from_rotvec(content["poses"][:, :66].reshape(-1, 3)).as_matrix().reshape(4, 22, 3, 3)
    turns = np.concatenate([turns, np.tile(np.eye(3), (4, 2, 1, 1))], 1)
    found = body.joints(torch.from_numpy(turns), transl=torch.from_numpy(content["trans"])).numpy()[:, :22]
    expected = joints(some, rig)[:, :22] @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # y up → z up
    assert np.abs(found - expected).max() < MILLIMETRE
    assert read_pose(tmp_path / "a.npz", 2).frame == "amass"


def test_gaps_in_a_video_are_filled_at_its_rate(rig):
    some = motion(3, "video", [0, 0.2, 0.8])
    even, rate = some.even()
    assert rate == pytest.approx(5) and np.allclose(even.times, [0, 0.2, 0.4, 0.6, 0.8])
    for old, new in ((0, 0), (1, 1), (2, 4)):
        assert np.allclose(even.rotations[new], some.rotations[old])


@pytest.mark.parametrize("name", ["smpl", "anny-standin"])
def test_whose_body_it_is_stands_in_the_file(rig, name):
    from dataclasses import replace

    from pose_rft.export.motion import NOTES

    one, own = motion(1, "pose"), replace(rig, name=name, note=NOTES[name])
    assert NOTES[name] in parsed_glb(glb(one, own, "x"))[0]["asset"]["copyright"]
    with np.load(io.BytesIO(amass(one, own))) as content:
        assert str(content["licence"]) == NOTES[name]


def write_lines(folder, rig, frames=3):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for key, kind, count in (("0" * 16, "photograph", 1), ("1" * 16, "video", frames)):
        for frame in range(count):
            for index in range(2):
                head = {"schema": SCHEMA, "version": VERSION, "input": key, "frame": frame, "index": index}
                head |= {"persons": 2, "track": 5 - index if kind == "video" else None, "name": kind[0], "kind": kind}
                pose = Rotation.random(24, random_state=frame * 2 + index).as_matrix().tolist()
                rest = {"frames_per_second": 10.0, "rotation_matrices": pose, "samples_rotation_matrices": []}
                rows.append(head | rest | {"camera": {"transl_metres": [0, 0, 3]}, "body_model": rig.name})
    (folder / PREDICTIONS).write_bytes(b"".join(map(line_bytes, rows)))
    return folder / PREDICTIONS


def test_each_person_of_a_photograph_and_of_a_video_becomes_a_file(tmp_path, rig, body):
    path = write_lines(tmp_path / "a", rig)
    made = export_file(path.parent, ["glb", "bvh"], tmp_path / "out", body)
    assert {file.name for file in made} == {
        f"{n}.{kind}" for n in ("p_0", "p_1", "v_4", "v_5") for kind in ("glb", "bvh")
    }
    assert len(parsed_glb((tmp_path / "out/v_4.glb").read_bytes())[0]["animations"]) == 1
    assert (tmp_path / "out" / NOTE).read_text().strip() == rig.note
    assert [file.name for file in export_file(path, ["obj"], tmp_path / "out", body, "p")] == ["p_0.obj", "p_1.obj"]


def test_an_export_never_takes_the_place_of_another_file(tmp_path, rig, body):
    path = write_lines(tmp_path / "a", rig)
    export_file(path, ["bvh"], None, body)
    export_file(path, ["bvh"], None, body)  # the same is the same
    (tmp_path / "a/p_0.bvh").write_text("mine")
    with pytest.raises(PoseRftError, match=r"p_0\.bvh is there with another content"):
        export_file(path, ["bvh"], None, body)
    assert (tmp_path / "a/p_0.bvh").read_text() == "mine"


@pytest.mark.parametrize("content", ["{}\n", "x\n", '{"schema":"pose-rft/prediction","version":2}\n'])
def test_a_file_that_holds_no_predictions_is_named(tmp_path, body, content):
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(PoseRftError, match=r"x\.jsonl holds a line that is no pose-rft/prediction of version 1"):
        export_file(tmp_path / "x.jsonl", ["glb"], None, body)


@pytest.mark.parametrize("content", ["{}", '{"rotation_matrices": [1]}', '{"rotation_matrices": [[["a"]]]}'])
def test_a_json_that_is_no_prediction_is_named(tmp_path, body, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(PoseRftError, match=r"x\.json holds no prediction"):
        export_file(tmp_path / "x.json", ["glb"], None, body)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../../evil"}, {"name": "/evil"}, {"name": ""}, {"name": None}, {"name": "a\0b"},
        {"frame": 10**8}, {"frame": 0}, {"frames_per_second": 0}, {"frames_per_second": -3.0},
        {"frames_per_second": 1e-300}, {"frames_per_second": None}, {"frames_per_second": "25"},
        {"rotation_matrices": np.zeros((24, 3, 3)).tolist()}, {"rotation_matrices": (np.eye(3) * 2).tolist() * 24},
        {"rotation_matrices": np.diag([1, 1, -1]).tolist() * 24}, {"rotation_matrices": [[1], [1, 2]]},
        {"rotation_matrices": None}, {"camera": {"transl_metres": [1, 2]}}, {"camera": {"transl_metres": "abc"}},
        {"camera": [1]}, {"camera": {"transl_metres": [1e300, 0, 0]}},
    ],
    ids=lambda changed: str(changed)[:40],
)  # fmt: skip
def test_lines_that_somebody_changed_are_one_sentence_and_make_no_file(tmp_path, rig, body, changed):
    path = write_lines(tmp_path / "a/b", rig)
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    rows = [row for row in rows if row["kind"] == "video" and row["index"] == 0]
    rows = [row | {"persons": 1} for row in rows]
    path.write_bytes(
        b"".join(map(line_bytes, [rows[0] | {"name": changed.get("name", "v")}, rows[1], rows[2] | changed]))
    )
    before = set(tmp_path.rglob("*"))
    with pytest.raises(PoseRftError, match=r"holds no prediction of"):
        export_file(path, ["glb", "bvh", "amass", "obj"], tmp_path / "a/out", body)
    assert set(tmp_path.rglob("*")) == before


def test_an_unknown_format_or_name_says_what_there_is(tmp_path, rig, body):
    with pytest.raises(PoseRftError, match="choose of glb, bvh, amass, obj"):
        parse_kinds("glb,fbx", "--to")
    with pytest.raises(PoseRftError, match="no input called z; it has p, v"):
        export_file(write_lines(tmp_path / "a", rig), ["glb"], None, body, "z")


def test_a_pose_of_the_lines_can_be_described(tmp_path, rig):
    path = write_lines(tmp_path / "a", rig)
    expected = Rotation.random(24, random_state=3).as_matrix()
    assert np.allclose(read_pose(path, 5).rotations.numpy(), expected, atol=1e-5)
