"""What Blender's joints are compared with, which needs no Blender: benchmarks/blender.py."""

import json
from pathlib import Path

import numpy as np

from benchmarks import blender
from pose_rft.export.motion import UPSIDE


def test_joints_are_expected_where_an_importer_puts_those_of_a_file() -> None:
    camera = np.random.default_rng(0).normal(size=(2, 3))
    found = blender.expected({"joint_names": ["head", "pelvis"], "joints_metres_camera": camera.tolist()})
    in_file = camera @ UPSIDE  # y up, as GLB and BVH have it
    for joint, (x, y, z) in zip(("head", "pelvis"), in_file, strict=True):
        np.testing.assert_allclose(found[joint], (x, -z, y))


def test_an_exported_file_is_compared_with_the_first_pose_of_its_person(tmp_path: Path) -> None:
    lines = [
        {"name": "photo", "index": 0, "track": None, "at": "the only one"},
        {"name": "film", "index": 0, "track": 3, "at": "first frame"},
        {"name": "film", "index": 0, "track": 5, "at": "first frame"},
        {"name": "film", "index": 1, "track": 3, "at": "second frame"},
    ]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {stem: line["at"] for stem, line in blender.first_poses(tmp_path).items()}
    assert found == {"photo": "the only one", "film_3": "first frame", "film_5": "first frame"}
