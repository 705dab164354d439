"""What tests of the readers compare: a record's body with the person who was placed, and its 2D with its 3D."""

from functools import cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import project
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.datasets.common.base import DatasetReader
from pose_rft.record import Defect, Record
from pose_rft.sample.people import Person


def read_all(release: DatasetReader, split: str) -> tuple[list[Record], list[Defect]]:
    """All rows of a split; every unit gives exactly as many as it promised."""
    rows = []
    for unit in release.units(split):
        mine = list(release.read(unit, split))
        assert len(mine) == unit.expected, unit.key
        rows += mine
    keys = [row.key for row in rows if isinstance(row, Record)]
    assert len(set(keys)) == len(keys)
    return [r for r in rows if isinstance(r, Record)], [r for r in rows if isinstance(r, Defect)]


def body_angle(record: Record, person: Person) -> float:
    """Largest geodesic angle, radians, between the local rotations of record and person (without the root)."""
    mine = Rotation.from_rotvec(record.smpl.body_pose)
    return float((Rotation.from_matrix(person.rotations[1:]).inv() * mine).magnitude().max())


@cache
def numpy_body(body_models: Path, gender: str) -> NumpyBody:
    return NumpyBody(body_models, gender)


def joint_error(record: Record, body_models: Path) -> float:
    """Largest distance, mm, between the record's 3D joints and those of its posed SMPL body."""
    smpl = record.smpl
    body = numpy_body(body_models, smpl.gender)
    rotations = Rotation.from_rotvec(np.concatenate([smpl.global_orient[None], smpl.body_pose])).as_matrix()
    vertices, joints = body.vertices(rotations, smpl.betas, smpl.transl)
    expected = body.keypoints(vertices, joints, record.joints3d.joint_set)
    return float(np.linalg.norm(expected - record.joints3d.points[:, :3], axis=1).max() * 1000)


def reprojection_error(record: Record) -> float:
    """Largest distance, px, between the projected 3D joints and the 2D joints."""
    found = project(record.joints3d.points[:, :3], record.camera)
    return float(np.linalg.norm(found - record.joints2d.points[:, :2], axis=1).max())
